package main

import (
	"bytes"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/doctor"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/output"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

const doctorLong = `Doctor looks at this host, and says in twenty lines: what its kernel has of
AF_ALG, who uses it, what is in force, what is open, what to do next, the least
change first, and what can go. It changes nothing, and loads no kernel module.
As root it sees every process; as anybody else it says what is unknown.

Who uses it comes from open sockets, the records of the kernel half, the logs
that --log names, units that list AF_ALG, and programs that are known users:
  used      it was seen
  unused    a record of 30 days has none of it, or the kernel has no AF_ALG
  unknown   nobody looked

Who may use what is a matrix, of containers, units and processes by types of
algorithms and by classes of sockets beside AF_ALG:
  proved closed       by seccomp filters, for every input of the calls
  closed, not proved  by the kernel, a setting of the host, or the kernel half
  allowed             by a rule of the policy
  open                with the call that gets through
  left open           no policy asks for it to be closed
To read filters, each thread under one is stopped for some microseconds.

The policy is the one that is installed, or that --policy names. With --root the
files of another host or of an image are looked at: nothing that runs.

Exit status 0 means that there is nothing to do, 1 that something is open, and 3
that the host could not be asked about everything, and nothing was found open.`

func newDoctor(t *tui) *cobra.Command {
	var o doctor.Options
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Examine this host: who uses AF_ALG, who could, and what to do",
		Long:  doctorLong,
		Example: `  sudo afalg-policy doctor
  sudo afalg-policy doctor --verbose
  sudo afalg-policy doctor --log /var/log/afalg-policy.json --json > "$(hostname).json"
  sudo afalg-policy doctor --html report.html
  afalg-policy doctor --merge host-1.json host-2.json --html fleet.html`,
		Args: cobra.ArbitraryArgs,
	}
	cmd.Flags().StringVar(&o.Root, "root", "/", "look at the files of a host below `DIR`")
	cmd.Flags().StringVar(&o.Policy, "policy", "", "judge by `POLICY`: a file or builtin:NAME")
	cmd.Flags().StringArrayVar(&o.Logs, "log", nil, "read decisions from `FILE`, as --log of run and agent writes them; may be repeated")
	verbose := cmd.Flags().BoolP("verbose", "v", false, "say the reasons, and the matrix")
	html := cmd.Flags().String("html", "", "write a page to `FILE` too; it needs no network")
	merge := cmd.Flags().Bool("merge", false, "put the reports of hosts, named as arguments, into one of the fleet")
	for _, name := range []string{"root", "policy", "log", "verbose"} {
		cmd.MarkFlagsMutuallyExclusive("merge", name)
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *merge {
			return mergeDoctor(t, args, *html, wantJSON())
		}
		if len(args) > 0 {
			return usagef("%s: files are for --merge", args[0])
		}
		o.Tool = buildInfo()
		d, err := doctor.Examine(cmd.Context(), o)
		if err != nil {
			return doctorError(err)
		}
		if err := writePage(*html, d); err != nil {
			return err
		}
		return showDoctor(t, d, wantJSON(), *verbose)
	}
	return cmd
}

// mergeDoctor puts the reports of a fleet into one.
func mergeDoctor(t *tui, files []string, html string, asJSON bool) error {
	if len(files) == 0 {
		return usagef("--merge: name the reports of the hosts, as doctor --json prints them")
	}
	fleet, err := report.MergeDoctor(files, buildInfo(), time.Now())
	if err != nil {
		return doctorError(err)
	}
	if err := writePage(html, fleet); err != nil {
		return err
	}
	err = t.answer(fleet, asJSON, fleet.Verdict == report.Closed)
	if fleet.Verdict == report.Undecided {
		return hosterr.Errorf("not everything is known of every host, and nothing was found open")
	}
	return err
}

// writePage writes a report as one file of HTML, if a name was given.
func writePage(name string, r interface{ HTML(io.Writer) error }) error {
	if name == "" {
		return nil
	}
	var page bytes.Buffer
	if err := r.HTML(&page); err != nil {
		return err
	}
	return written(output.File(name, page.Bytes()))
}

func showDoctor(t *tui, d *report.Doctor, asJSON, verbose bool) error {
	err := t.answer(d, asJSON, d.Verdict == report.Closed)
	if verbose && !asJSON {
		d.Reasons(&t.Printer)
	}
	if d.Verdict == report.Undecided {
		return hosterr.Errorf("not everything could be asked, and nothing was found open: see what is not asked")
	}
	return err
}

// doctorError makes an error about what was named one of use: 1 would say that
// something is open.
func doctorError(err error) error {
	if exitStatus(err) == exitNo {
		return &unusableError{err}
	}
	return err
}
