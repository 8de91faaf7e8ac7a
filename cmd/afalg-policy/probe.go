package main

import (
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/probe"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

func newProbe(t *tui) *cobra.Command {
	var opt probe.Options
	var routes []string
	var algorithm, policyName string
	var grants []string
	cmd := &cobra.Command{
		Use:   "probe",
		Short: "Ask the running kernel, route by route, whether AF_ALG is closed",
		Long: `Probe asks the kernel that it runs on, as the process that it is: run it inside
the container, the unit or the shell that the question is about. It makes
sockets and binds them, nothing else, and loads no kernel module without --load.

Each route gets a verdict, next to a positive control: a socket of an ordinary
family by the same route.
  open         a socket was obtained (socketpair: the call reached the family)
  loadable     no filter stops the call; the module is not loaded, so the real
               call was not made (an LSM may still deny it: --load asks)
  undecided    the answers do not tell
  absent       no filter stops the call; this kernel has no AF_ALG
  brokered     a broker handed out a placeholder
  closed       a policy denied it, with the errno or signal shown
  unavailable  this kernel or machine does not have the route

With --policy it asks about all that the policy closes besides AF_ALG as well:
classes of sockets, by each of their names and on every ABI, socket options, and
user namespaces. A namespace is really made, by a child that ends at once; no
option is set. What a --grant opens to this process is left out.

Exit status 1 means that something is open, loadable or undecided.`,
		Example: `  afalg-policy probe
  afalg-policy probe --json --route socket --route io_uring
  afalg-policy probe --policy policy.yaml --grant ipsec
  docker run --rm -v "$PWD/bin/afalg-policy:/p:ro" alpine /p probe`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringArrayVar(&routes, "route", nil, "ask about `ROUTE` only; may be repeated (see list routes)")
	cmd.Flags().BoolVar(&opt.Load, "load", false, "make the real calls even if the kernel loads modules for them")
	cmd.Flags().StringVar(&algorithm, "algorithm", "hash:sha256", "what to bind a socket to, as `TYPE:NAME`")
	cmd.Flags().StringVar(&policyName, "policy", "", "ask about what `POLICY` closes besides")
	cmd.Flags().StringArrayVar(&grants, "grant", nil, "`RULE` that this process holds; may be repeated; with --policy")
	// The only error is an unknown flag, and it was added above.
	_ = cmd.RegisterFlagCompletionFunc("route", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return routeNames(), cobra.ShellCompDirectiveNoFileComp
	})
	wantJSON := addFormat(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		var err error
		if opt.Routes, err = parseRoutes(routes); err != nil {
			return err
		}
		if opt.Algorithm, err = afalg.ParseAlgorithm(algorithm); err != nil {
			return usagef("--algorithm %s: %w", algorithm, err)
		}
		if opt.Classes, err = classesToProbe(t, policyName, grants); err != nil {
			return err
		}
		opt.Child = []string{cmd.Name(), "answer"}
		r, err := probe.Run(cmd.Context(), opt)
		if err != nil {
			return hosterr.Errorf("probe: %w", err)
		}
		return t.answer(report.NewProbe(r), wantJSON(), !r.Open)
	}
	cmd.AddCommand(newProbeAnswer())
	return cmd
}

// classesToProbe are what a policy closes to who holds the grants.
func classesToProbe(t *tui, policyName string, grants []string) ([]probe.Class, error) {
	if policyName == "" {
		if len(grants) > 0 {
			return nil, usagef("--grant is about the rules of a policy: give --policy")
		}
		return nil, nil
	}
	p, err := loadPlan(t, policyName)
	if err != nil {
		return nil, err
	}
	held, err := p.RulesNamed(grants)
	if err != nil {
		return nil, usagef("%w", err)
	}
	return report.ProbeClasses(p, held), nil
}

// newProbeAnswer is the child that probe starts: a filter may kill it.
func newProbeAnswer() *cobra.Command {
	return &cobra.Command{
		Use:     "answer QUESTIONS",
		Short:   "Put questions to the kernel for probe",
		Long:    "Answer is what probe runs in a process of its own, as a filter may kill it.",
		Example: `  afalg-policy probe answer '[{"ABI":"x86-64","Op":"socket","Family":2,"Type":1}]'`,
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE: func(_ *cobra.Command, args []string) error {
			// Past the buffer: an answer must be out before the next question kills.
			return probe.Answer(args, os.Stdout)
		},
	}
}

func routeNames() []string {
	var names []string
	for _, r := range afalg.Routes() {
		names = append(names, string(r.Route))
	}
	return names
}

func parseRoutes(names []string) ([]afalg.Route, error) {
	var routes []afalg.Route
	for _, name := range names {
		if !slices.Contains(routeNames(), name) {
			return nil, usagef("--route %s: no such route; there are %s", name, strings.Join(routeNames(), ", "))
		}
		routes = append(routes, afalg.Route(name))
	}
	return routes, nil
}
