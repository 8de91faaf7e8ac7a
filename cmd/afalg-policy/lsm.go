package main

import (
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/lsm/hold"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

const lsmLong = `Lsm puts a policy into the kernel, by BPF: it decides about each use of AF_ALG
of every process of this host, as long as the host runs. No daemon has to live.

It takes root on the host itself, a kernel that describes its types (BTF), and
one of two attachments:

  lsm       bpf is among the active LSMs (/sys/kernel/security/lsm)
  fmod_ret  it is not, and the kernel preempts no task that runs in it
            (preempt=none or voluntary)

Where neither is to be had nothing is loaded, and the exit status is 3.`

func newLSM(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "lsm",
		Short: "Decide in the kernel, for every process of the host",
		Long:  lsmLong,
		Example: `  afalg-policy explain policy.yaml --lsm
  afalg-policy lsm load policy.yaml --audit
  afalg-policy lsm status`,
	}
	cmd.AddCommand(newLSMLoad(t), newLSMStatus(t), newLSMRefresh(t), newLSMLearn(t), newLSMUnload(t))
	asGroup(cmd, "command")
	return cmd
}

const lsmStatusLong = `Status asks the kernel what is in force: the mode, the attachment and why it is
that one, the policy, the counters, the containers that hold rules, and the
sockets from before the load with who holds them.

What is wrong stands on standard error as a fault, such as a program whose pin
is gone, or a kernel that preempts now and did not at the load. Missed are calls
that the kernel let through without asking.

Exit status 0 means that the policy decides. 1 means that it does not, or only
records, or that there is a fault; 3 that this host cannot.`

func newLSMStatus(t *tui) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tell what is in force in the kernel",
		Long:  lsmStatusLong,
		Example: `  afalg-policy lsm status
  afalg-policy lsm status --json`,
		Args: cobra.NoArgs,
	}
	wantJSON := addFormat(cmd)
	cmd.RunE = func(*cobra.Command, []string) error {
		s, err := lsm.ReadStatus()
		if err != nil {
			return err
		}
		if s.State == nil && len(s.Faults) == 0 {
			if _, err := s.Host.Choose(); err != nil {
				return err
			}
		}
		return showKernelHalf(t, report.NewKernelHalf("lsm status", s), wantJSON())
	}
	return cmd
}

func showKernelHalf(t *tui, r *report.KernelHalf, asJSON bool) error {
	return t.answer(r, asJSON, r.Verdict == report.Yes)
}

func newLSMUnload(t *tui) *cobra.Command {
	return &cobra.Command{
		Use:   "unload",
		Short: "Take the policy out of the kernel",
		Long: `Unload takes the policy out of the kernel: nothing is denied or recorded from
then on, and what was recorded is gone. Where none is loaded, none is
afterwards. A unit that loads the policy at the next boot stays.`,
		Example: `  afalg-policy lsm unload`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := lsm.OnHost(); err != nil {
				return err
			}
			if err := hold.End(cmd.Context()); err != nil {
				return err
			}
			if err := lsm.Unload(); err != nil {
				return err
			}
			t.Printf("unloaded: the kernel decides nothing by a policy of AF_ALG")
			return nil
		},
	}
}
