package gen

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// SELinuxOptions are those of the SELinux target. Userspace, Kernel and Lacks
// are facts of the host that will load the module.
type SELinuxOptions struct {
	Common
	// Domains are the domains that hold a rule, by its name. A rule is granted to
	// its domains: SELinux knows neither executables nor units.
	Domains map[string][]string
	// Userspace is the version of the host's SELinux libraries, which compile
	// modules; DefaultUserspace if empty.
	Userspace string
	// Kernel is the release of the host's kernel; not known if empty.
	Kernel string
	// Lacks are classes that the host's policy does not have.
	Lacks []string
}

// DefaultUserspace is the oldest version that knows deny rules.
const DefaultUserspace = "3.6"

// selinuxModule is the file, and without its ending the module.
const selinuxModule = "afalg-policy.cil"

// SELinux renders a module in CIL that takes AF_ALG, and what else the policy
// closes, from every domain but those that hold a rule.
func SELinux(p *plan.Plan, o SELinuxOptions) ([]File, []plan.Gap, error) {
	s := selinux{SELinuxOptions: o, plan: p}
	if err := s.resolve(); err != nil {
		return nil, nil, err
	}
	gaps := s.gaps()
	if err := s.Settle(gaps); err != nil {
		return nil, gaps, err
	}
	return []File{{Path: selinuxModule, Data: []byte(s.render(gaps))}}, gaps, nil
}

type selinux struct {
	SELinuxOptions
	plan       *plan.Plan
	holders    []policy.Rule // that a domain holds
	constrains bool          // the userspace has no deny rules
	userns     bool          // the kernel is known to ask about user namespaces
	denied     []string      // classes
}

// typeName admits the names of types, with those of blocks.
var typeName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]*([.-][A-Za-z0-9_]+)*$`)
})

func (s *selinux) resolve() (err error) {
	if s.Userspace == "" {
		s.Userspace = DefaultUserspace
	}
	switch modules, err := atLeast(s.Userspace, 2, 4); {
	case err != nil:
		return fmt.Errorf("SELinux userspace %w", err)
	case !modules:
		return fmt.Errorf("SELinux userspace %s takes no modules in CIL; 2.4 is the first that does", s.Userspace)
	}
	denies, _ := atLeast(s.Userspace, 3, 6)
	s.constrains = !denies
	if s.Kernel != "" {
		if s.userns, err = atLeast(s.Kernel, 6, 1); err != nil {
			return fmt.Errorf("kernel %w", err)
		}
	}
	if err := s.resolveDomains(); err != nil {
		return err
	}
	return s.resolveClasses()
}

// atLeast compares the first two numbers of a version.
func atLeast(version string, major, minor int) (bool, error) {
	var a, b int
	if n, err := fmt.Sscanf(version, "%d.%d", &a, &b); n != 2 || err != nil || a < 0 || b < 0 {
		return false, fmt.Errorf("%q: a version such as %d.%d is meant", version, major, minor)
	}
	return a > major || a == major && b >= minor, nil
}

func (s *selinux) resolveDomains() error {
	for _, name := range s.Grants {
		if len(s.Domains[name]) == 0 {
			return fmt.Errorf("--grant %s: to SELinux a rule is held by a domain; name it with --domain %s=TYPE", name, name)
		}
	}
	for _, name := range sortedKeys(s.Domains) {
		rules, err := s.plan.RulesNamed([]string{name})
		if err != nil {
			return fmt.Errorf("--domain %s: the policy has no rule of that name", name)
		}
		for _, domain := range s.Domains[name] {
			if len(domain) > maxTypeName || !typeName().MatchString(domain) {
				return fmt.Errorf("--domain %s=%q: the name of an SELinux type, like iwd_t, is meant", name, domain)
			}
		}
		if len(s.Domains[name]) == 0 {
			return fmt.Errorf("--domain %s: no type", name)
		}
		s.holders = append(s.holders, rules...)
	}
	return nil
}

const maxTypeName = 255

func (s *selinux) resolveClasses() error {
	for _, class := range slices.Sorted(maps.Keys(classMembers())) {
		extent := extentOf(class, s.closed())
		if extent == wholeOf || extent == partOf && !slices.Contains(mixedClasses, class) {
			s.denied = append(s.denied, class)
		}
	}
	if s.plan.UserNamespaces {
		s.denied = append(s.denied, usernsClass)
	}
	for _, class := range s.Lacks {
		switch {
		case class == algClass:
			return fmt.Errorf("--lacks %s: then SELinux cannot tell AF_ALG from other sockets, and there is nothing to generate; use another target", class)
		case !slices.Contains(s.denied, class):
			return fmt.Errorf("--lacks %s: the output needs no class of that name; it has %s", class, strings.Join(s.denied, ", "))
		}
	}
	s.denied = slices.DeleteFunc(s.denied, func(class string) bool { return slices.Contains(s.Lacks, class) })
	return nil
}

// closed lists what the policy closes, AF_ALG among it.
func (s *selinux) closed() []afalg.Sockets {
	return append(s.plan.ClosedSockets(), afalg.Sockets{Family: afalg.Family})
}

// opensClass reports whether a rule allows something of a class.
func opensClass(r policy.Rule, class string) bool {
	opened := plan.OpenedBy([]policy.Rule{r})
	if class == usernsClass {
		return opened.UserNamespaces
	}
	sockets := opened.Sockets
	if len(r.Algorithms) > 0 {
		sockets = append(sockets, afalg.Sockets{Family: afalg.Family})
	}
	return extentOf(class, sockets) != noneOf
}

func (s *selinux) render(gaps []plan.Gap) string {
	var b strings.Builder
	b.WriteString(s.headerAs("; ", s.plan, s.notes(), gaps))
	for _, rule := range s.holders {
		fmt.Fprintf(&b, "\n; rule %s\n", rule.Name)
		for i, domain := range s.Domains[rule.Name] {
			// Only a type has an alias: an attribute, which may stand for every
			// domain, stops the compiler.
			fmt.Fprintf(&b, "(typealias %s)\n(typealiasactual %[1]s %s)\n", holderName(rule.Name, i), domain)
		}
	}
	if s.constrains {
		s.renderConstraints(&b)
	} else {
		s.renderDenials(&b)
	}
	return b.String()
}

func holderName(rule string, i int) string { return fmt.Sprintf("afalg_policy_%s_%d", rule, i) }

// holdersOf lists the names of the domains that may use a class.
func (s *selinux) holdersOf(class string) []string {
	var names []string
	for _, rule := range s.holders {
		if opensClass(rule, class) {
			for i := range s.Domains[rule.Name] {
				names = append(names, holderName(rule.Name, i))
			}
		}
	}
	return names
}

// renderDenials denies to every type, not only to the domains that have an
// attribute, and on every type: a program may give its sockets another label
// than its own (/proc/self/attr/sockcreate).
func (s *selinux) renderDenials(b *strings.Builder) {
	b.WriteString("\n(typeattribute afalg_policy_any)\n(typeattributeset afalg_policy_any (all))\n")
	for _, class := range s.denied {
		from := "afalg_policy_any"
		b.WriteByte('\n')
		if holders := s.holdersOf(class); len(holders) > 0 {
			from = "afalg_policy_not_" + class
			writeSet(b, from, "not (%s)", holders)
		}
		for _, statement := range []string{"deny", "neverallow"} {
			fmt.Fprintf(b, "(%s %s afalg_policy_any (%s (%s)))\n", statement, from, class, strings.Join(permissionsOf(class), " "))
		}
	}
}

// renderConstraints has the kernel deny what rules allow.
func (s *selinux) renderConstraints(b *strings.Builder) {
	b.WriteString("\n(typeattribute afalg_policy_nobody)\n")
	for _, class := range s.denied {
		who := "afalg_policy_nobody"
		b.WriteByte('\n')
		if holders := s.holdersOf(class); len(holders) > 0 {
			who = "afalg_policy_may_" + class
			writeSet(b, who, "%s", holders)
		}
		fmt.Fprintf(b, "(constrain (%s (%s)) (eq t1 %s))\n", class, strings.Join(permissionsOf(class), " "), who)
	}
}

func writeSet(b *strings.Builder, name, format string, members []string) {
	fmt.Fprintf(b, "(typeattribute %s)\n(typeattributeset %[1]s (%s))\n", name, fmt.Sprintf(format, strings.Join(members, " ")))
}

func (s *selinux) notes() []string {
	const capability = "/sys/fs/selinux/policy_capabilities/extended_socket_class"
	notes := []string{
		"Install it, under this name, as root: grep -qx 1 " + capability + " && semodule -i " + selinuxModule + ". It is in force at once, and after each boot; sockets that are open are asked about again at each use. Undo it with semodule -r " + strings.TrimSuffix(selinuxModule, ".cil") + ".",
		"Without that capability in the host's policy the kernel does not ask about AF_ALG by its class, and this file does nothing.",
		"It leaves open: a host where SELinux is disabled or permissive, domains that are permissive (semanage permissive -l), sockets that were made before the policy was loaded, as in the initramfs, and whoever may enter a domain that holds a rule.",
	}
	if s.constrains {
		notes = append(notes, "SELinux userspace before 3.6 has no deny rules, so constraints deny here: sesearch goes on listing the rules that they overrule.")
	}
	for _, broken := range s.plan.Breaks() {
		if !s.leaves(broken.Class) {
			notes = append(notes, fmt.Sprintf("It closes %s, which breaks: %s", broken.Class, broken.Who))
		}
	}
	return notes
}

// leaves reports whether the output leaves a denied class open, by its name.
func (s *selinux) leaves(class string) bool {
	if class == (policy.Class{UserNamespaces: true}).String() {
		return !slices.Contains(s.denied, usernsClass)
	}
	leftOpen := func(c afalg.Sockets) bool {
		return c.String() == class && !slices.ContainsFunc(s.denied, func(d string) bool { return extentOf(d, []afalg.Sockets{c}) != noneOf })
	}
	return slices.ContainsFunc(s.namedClasses(), leftOpen) ||
		slices.ContainsFunc(s.plan.ClosedOptions(), func(o afalg.SocketOption) bool { return o.String() == class })
}
