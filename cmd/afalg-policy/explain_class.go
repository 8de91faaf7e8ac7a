package main

import (
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// askedClass is a question about what a policy closes besides AF_ALG.
type askedClass struct {
	socket, option string
	userNamespace  bool
	grants         []string
}

func (a *askedClass) addFlags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.socket, "socket", "", "ask about a socket: `FAMILY:TYPE[:PROTOCOL]`, as in AF_NETLINK:SOCK_RAW:NETLINK_XFRM")
	f.StringVar(&a.option, "socket-option", "", "ask about setting a socket option: `LEVEL:OPTION`, as in SOL_TCP:TCP_ULP")
	f.BoolVar(&a.userNamespace, "user-namespace", false, "ask about making a user namespace")
	f.StringArrayVar(&a.grants, "grant", nil, "`RULE` that the asking process holds; may be repeated; with these three")
	kinds := []string{"socket", "socket-option", "user-namespace"}
	cmd.MarkFlagsMutuallyExclusive(append(slices.Clone(kinds), "algorithm")...)
	for _, other := range []string{"binary", "sha256", "container", "clean-exec", "user", "capability", "unit"} {
		for _, kind := range kinds {
			cmd.MarkFlagsMutuallyExclusive(kind, other)
		}
	}
}

func (a *askedClass) isAsked() bool { return a.socket != "" || a.option != "" || a.userNamespace }

// explain answers for who holds the grants, and those of a container if it is
// one that asks.
func (a *askedClass) explain(t *tui, policyName string, c *plan.Container, asJSON bool) error {
	ask, err := a.question()
	if err != nil {
		return err
	}
	p, err := loadPlan(t, policyName)
	if err != nil {
		return err
	}
	names := a.grants
	if c != nil {
		rules, _ := p.GrantsOf(*c)
		names = append(slices.Clone(names), rules...)
	}
	held, err := p.RulesNamed(names)
	if err != nil {
		return usagef("%w", err)
	}
	what, d := ask(p, held)
	_, free := ask(p, p.Rules)
	r := report.NewClassExplanation(what, d, free.Rule)
	return t.answer(r, asJSON, d.Allowed)
}

// question decides, and names what is asked for.
func (a *askedClass) question() (func(*plan.Plan, []policy.Rule) (string, plan.ClassDecision), error) {
	switch {
	case a.socket != "":
		s, err := parseSocket(a.socket)
		return func(p *plan.Plan, held []policy.Rule) (string, plan.ClassDecision) {
			return s.String(), plan.DecideSocket(p, held, s.Family, s.Type, s.Protocol)
		}, err
	case a.option != "":
		o, err := parseSocketOption(a.option)
		return func(p *plan.Plan, held []policy.Rule) (string, plan.ClassDecision) {
			return o.String(), plan.DecideOption(p, held, o)
		}, err
	}
	return func(p *plan.Plan, held []policy.Rule) (string, plan.ClassDecision) {
		return plan.UserNamespaces, plan.DecideUserNamespace(p, held)
	}, nil
}

// parseSocket reads the arguments of a socket call.
func parseSocket(text string) (s afalg.Sockets, err error) {
	parts := strings.Split(text, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return s, usagef("--socket %s: write FAMILY:TYPE or FAMILY:TYPE:PROTOCOL, as in AF_NETLINK:SOCK_RAW:NETLINK_XFRM", text)
	}
	if s.Family, err = constant("--socket "+text, "family", parts[0], afalg.Families(), afalg.FamilyByName); err != nil {
		return s, err
	}
	if s.Type, err = constant("--socket "+text, "type", parts[1], afalg.SocketTypes(), afalg.SocketTypeByName); err != nil {
		return s, err
	}
	s.HasProtocol = true
	if len(parts) == 2 {
		return s, nil
	}
	s.Protocol, err = constant("--socket "+text, "protocol of that family", parts[2], afalg.Protocols(s.Family),
		func(name string) (uint32, bool) { return afalg.ProtocolByName(s.Family, name) })
	return s, err
}

func parseSocketOption(text string) (o afalg.SocketOption, err error) {
	level, option, ok := strings.Cut(text, ":")
	if !ok {
		return o, usagef("--socket-option %s: write LEVEL:OPTION, as in SOL_TCP:TCP_ULP", text)
	}
	if o.Level, err = constant("--socket-option "+text, "level", level, afalg.OptionLevels(), afalg.OptionLevelByName); err != nil {
		return o, err
	}
	o.Option, err = constant("--socket-option "+text, "option of that level", option, afalg.SocketOptions(o.Level),
		func(name string) (uint32, bool) { return afalg.SocketOptionByName(o.Level, name) })
	return o, err
}

// constant reads one of the kernel's names, or a number.
func constant(flag, what, text string, all []string, byName func(string) (uint32, bool)) (uint32, error) {
	if n, ok := byName(text); ok {
		return n, nil
	}
	if n, err := strconv.ParseUint(text, 0, 32); err == nil {
		return uint32(n), nil
	}
	if meant, ok := policy.Near(text, all); ok {
		return 0, usagef("%s: no %s %q; did you mean %s?", flag, what, text, meant)
	}
	return 0, usagef("%s: no %s %q: write its name, or a number", flag, what, text)
}
