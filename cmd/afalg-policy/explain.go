package main

import (
	"errors"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// subject is the request as flags spell it.
type asked struct {
	binary, sha256, user, unit, algorithm string
	capabilities                          []string
	container, cleanExec                  bool
}

func newExplain(t *tui) *cobra.Command {
	var s asked
	var class askedClass
	cmd := &cobra.Command{
		Use:   "explain POLICY --algorithm TYPE:NAME | --socket … | --lsm",
		Short: "Tell whether a request is allowed, or what a container is granted",
		Long: `Explain decides one request as the policy means it: who asks, by the flags
given, for which algorithm. What no flag says is unknown and satisfies no
condition.

It names the rule that allows the request, with its place in the file. For a
denial it names the rule that came nearest, and what did not hold.

With --name and the like it is a container that asks, and only what the policy
grants to it holds. Without --algorithm its grants are shown: the rules, and who
makes the sockets of its 32-bit programs.

It asks nothing of this host: --user is root, a uid or a name, and a name is
not looked up. Exit status 0 means allowed, or that something is granted; 1
denied, or nothing.

With --socket, --socket-option or --user-namespace it reports whether the policy
closes that, where it says so, and which rule would allow it. --grant names the
rules that the asking process holds; those of a container are known.

With --lsm it prints the gaps that "lsm load" would have instead, and loads
nothing. As root it looks up users and executables on this host. Exit
status 1 means that the policy does not fit.`,
		Example: `  afalg-policy explain builtin:fips --binary /usr/bin/kcapi-hasher --user root --algorithm 'hash:hmac(sha512)'
  afalg-policy explain builtin:linux-7.3 --capability CAP_NET_ADMIN --algorithm 'skcipher:cbc(aes)' --json
  afalg-policy explain policy.yaml --platform docker --name web
  afalg-policy explain policy.yaml --socket AF_NETLINK:SOCK_RAW:NETLINK_XFRM --grant ipsec
  afalg-policy explain policy.yaml --socket-option SOL_TCP:TCP_ULP
  afalg-policy explain policy.yaml --lsm`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	f := cmd.Flags()
	f.StringVar(&s.algorithm, "algorithm", "", "what is asked for, as `TYPE:NAME`: hash:hmac(sha512)")
	f.StringVar(&s.binary, "binary", "", "absolute `PATH` of the executable, not of a link to it")
	f.StringVar(&s.sha256, "sha256", "", "digest of the executable, in `HEX`")
	f.BoolVar(&s.container, "container", false, "the binary's path is one inside a container: only a rule with its digest holds")
	f.BoolVar(&s.cleanExec, "clean-exec", false, "the executable was started where nobody else steers it: no LD_PRELOAD, no tracer")
	f.StringVar(&s.user, "user", "", "`USER` who asks: root, a uid, or a name")
	f.StringArrayVar(&s.capabilities, "capability", nil, "`CAP_…` held in the initial user namespace; may be repeated")
	f.StringVar(&s.unit, "unit", "", "systemd `UNIT` that the process belongs to")
	kernelHalf := f.Bool("lsm", false, "print the gaps of the kernel half")
	class.addFlags(cmd)
	facts := addContainerFacts(cmd)
	alone(cmd, "lsm")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if *kernelHalf {
			return explainKernelHalf(t, args[0], wantJSON())
		}
		c, err := facts.container()
		if err != nil {
			return err
		}
		if c == nil && cmd.Flags().Changed("platform") {
			return usagef("--platform alone names no container: add --name, --image, --label or the like")
		}
		if class.isAsked() {
			return class.explain(t, args[0], c, wantJSON())
		}
		if len(class.grants) > 0 {
			return usagef("--grant goes with --socket, --socket-option or --user-namespace")
		}
		grantsOnly := c != nil && !cmd.Flags().Changed("algorithm")
		var r plan.Request
		if !grantsOnly {
			if r, err = s.request(); err != nil {
				return err
			}
		}
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		if grantsOnly {
			return showHeld(t, p, *c, wantJSON())
		}
		if c != nil {
			rules, _ := p.GrantsOf(*c)
			p, _ = p.GrantedKnown(rules)
			r.Claimed = true
		}
		return showExplanation(t, plan.Explain(p, r), wantJSON())
	}
	return cmd
}

func (s asked) request() (plan.Request, error) {
	if s.algorithm == "" {
		return plan.Request{}, usagef("--algorithm is missing: TYPE:NAME, as in hash:hmac(sha512)")
	}
	algorithm, err := afalg.ParseAlgorithm(s.algorithm)
	if err != nil {
		return plan.Request{}, usagef("--algorithm %s: %w", s.algorithm, err)
	}
	if s.binary != "" && !filepath.IsAbs(s.binary) {
		return plan.Request{}, usagef("--binary %s: not an absolute path", s.binary)
	}
	r := plan.Request{
		Binary:       s.binary,
		SHA256:       strings.ToLower(s.sha256),
		Claimed:      s.container,
		CleanExec:    s.cleanExec,
		Capabilities: s.capabilities,
		Unit:         s.unit,
		Algorithm:    algorithm,
	}
	r.UID, r.User = parseUser(s.user)
	return r, nil
}

// parseUser splits the flag as rules do: root is uid 0, a number is a uid.
func parseUser(user string) (uid *uint32, name string) {
	id, ok := plan.UserID(user)
	switch {
	case !ok:
		return nil, user
	case user == "root":
		return &id, user
	}
	return &id, ""
}

func showExplanation(t *tui, e plan.Explanation, asJSON bool) error {
	r := report.NewExplanation(e)
	err := t.answer(r, asJSON, e.Allowed)
	if errors.Is(err, errNo) {
		if meant, ok := policy.Suggest(e.Request.Algorithm.Type, e.Request.Algorithm.Name); ok {
			t.Notef("%s is no well known algorithm: did you mean %s?", e.Request.Algorithm, meant)
		}
	}
	return err
}
