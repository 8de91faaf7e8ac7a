package gen

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// askedRule is a rule as Tetragon can ask for it. Of each list that is not empty
// one item must hold.
type askedRule struct {
	name         string
	binaries     []string // paths
	users        []string // uids, in decimal
	capabilities []string
	addresses    []string // with one of them the address of a bind begins
	// unasked is what the rule asks for and Tetragon cannot, for people. A grant
	// drops it; without one the rule holds only for what is listed beside it.
	unasked []string
	// out is set where nothing is left of the rule, and why.
	out string
}

// maxTetragonPath is the longest path that matchBinaries takes, in bytes.
const maxTetragonPath = 255

// maxSubjects is how many kinds of subject an output can have. Tetragon takes five
// selectors for a kprobe: one for each kind, one that leaves a process to another
// kprobe, and one that denies.
const maxSubjects = 3

// askRules asks for what Tetragon can of each rule.
func askRules(rules []policy.Rule, grants []string) []askedRule {
	var all []askedRule
	kinds := map[string]bool{}
	for _, rule := range rules {
		a := askRule(rule, slices.Contains(grants, rule.Name))
		if a.out == "" {
			kinds[a.kind()] = true
			if len(kinds) > maxSubjects {
				delete(kinds, a.kind())
				a.out = fmt.Sprintf("Tetragon takes five selectors for a call, and rules before this one have %d other pairs of users and capabilities", maxSubjects)
			}
		}
		all = append(all, a)
	}
	return all
}

func askRule(rule policy.Rule, granted bool) askedRule {
	a := askedRule{name: rule.Name, capabilities: slices.Sorted(slices.Values(rule.Capabilities))}
	for _, alg := range rule.Algorithms {
		a.addresses = append(a.addresses, afalg.AddressStart(alg.Algorithm))
	}
	named := rule.Anyone || len(rule.Capabilities) > 0
	empty := len(rule.Algorithms) == 0

	for _, b := range rule.Binaries {
		switch {
		case len(b.Path) > maxTetragonPath:
			a.unasked = append(a.unasked, fmt.Sprintf("a path of more than %d bytes", maxTetragonPath))
			continue
		case b.SHA256 != "":
			a.unasked = append(a.unasked, "the digest of "+b.Path)
			if !granted {
				continue
			}
		}
		a.binaries = append(a.binaries, b.Path)
	}
	empty = empty || len(rule.Binaries) > 0 && len(a.binaries) == 0

	for _, user := range rule.Users {
		if uid, ok := plan.UserID(user); ok {
			a.users = append(a.users, strconv.FormatUint(uint64(uid), 10))
		} else {
			a.unasked = append(a.unasked, "the user "+user+", by name")
		}
	}
	if len(a.users) < len(rule.Users) {
		if granted {
			a.users = nil
		}
		empty = empty || len(a.users) == 0 && !granted
	}

	if len(rule.Units) > 0 {
		a.unasked = append(a.unasked, "the unit "+strings.Join(rule.Units, " or "))
		empty = empty || !granted
	}

	if rule.StrictExec {
		a.unasked = append(a.unasked, "a start that nobody steers, as strict-exec does")
		empty = empty || !granted
	}

	named = named || len(rule.Binaries)+len(rule.Users)+len(rule.Units) > 0
	switch {
	case !named:
		a.out = "the rule names nobody"
	case empty:
		a.out = "Tetragon cannot ask for " + strings.Join(a.unasked, ", nor for ")
	}
	a.binaries, a.users, a.addresses = sortedSet(a.binaries), sortedSet(a.users), sortedSet(a.addresses)
	return a
}

func sortedSet(items []string) []string { return slices.Compact(slices.Sorted(slices.Values(items))) }

// kind is what rules have in common that one selector can ask for.
func (a *askedRule) kind() string {
	return fmt.Sprint(a.users, a.capabilities, len(a.binaries) > 0)
}

// held lists the rules that the output asks for.
func (t *tetragon) held() []askedRule {
	return slices.DeleteFunc(slices.Clone(t.asked), func(a askedRule) bool { return a.out != "" })
}

// merged unites rules of one kind, in the order in which they come first.
func merged(rules []askedRule) []askedRule {
	var all []askedRule
	for _, rule := range rules {
		i := slices.IndexFunc(all, func(a askedRule) bool { return a.kind() == rule.kind() })
		if i < 0 {
			all = append(all, rule)
			continue
		}
		all[i].binaries = sortedSet(slices.Concat(all[i].binaries, rule.binaries))
		all[i].addresses = sortedSet(slices.Concat(all[i].addresses, rule.addresses))
	}
	return all
}

const deniedMessage = "AF_ALG denied by afalg-policy"

// Indexes of the arguments of security_socket_create and security_socket_bind,
// and of the one field of the caller.
const (
	createFamily = 0
	createKernel = 3
	bindSocket   = 0
	bindAddress  = 1
	callerUID    = 0
)

// socketProbe denies sockets of the closed families, of AF_ALG to whoever holds
// no rule. The kernel calls the function before it loads a module.
func (t *tetragon) socketProbe() kprobe {
	alg := indexFilter{createFamily, equal(strconv.Itoa(afalg.Family))}
	closed := []string{alg.Values[0]}
	for _, f := range t.plan.Families {
		if number := strconv.FormatUint(uint64(f.Number), 10); !slices.Contains(closed, number) {
			closed = append(closed, number)
		}
	}
	k := kprobe{
		Call:    "security_socket_create",
		Message: deniedMessage,
		Args:    []argument{{Index: createFamily, Type: "int", Label: "family"}, {Index: createKernel, Type: "int", Label: "kern"}},
	}
	for _, rule := range merged(t.held()) {
		k.allow(rule, alg)
	}
	// The kernel's own sockets have kern set.
	k.deny(t.plan.SocketErrno, plan.DefaultSocketErrno,
		indexFilter{createFamily, valueFilter{"InMap", closed}}, indexFilter{createKernel, equal("0")})
	return k
}

// bindProbes decide which algorithms a caller may bind: one kprobe for all
// executables that have the same rules, and a last one for everybody else. A
// call that one of them denies is denied.
func (t *tetragon) bindProbes() []kprobe {
	rules := t.held()
	var listed []string
	for _, rule := range rules {
		listed = append(listed, rule.binaries...)
	}
	listed = sortedSet(listed)

	var probes []kprobe
	for _, group := range alike(listed, rules) {
		k := bindProbe()
		for _, rule := range merged(rulesOf(group[0], rules)) {
			if len(rule.binaries) > 0 {
				rule.binaries = group
			}
			k.allow(rule, addressOf(rule))
		}
		k.deny(t.plan.BindErrno, plan.DefaultBindErrno, algSocket)
		k.Selectors[len(k.Selectors)-1].MatchBinaries = []valueFilter{in(group)}
		probes = append(probes, k)
	}

	rest := bindProbe()
	if len(listed) > 0 {
		rest.Selectors = append(rest.Selectors, selector{MatchBinaries: []valueFilter{in(listed)}, MatchActions: quiet})
	}
	for _, rule := range merged(rulesOf("", rules)) {
		rest.allow(rule, addressOf(rule))
	}
	rest.deny(t.plan.BindErrno, plan.DefaultBindErrno, algSocket)
	return append(probes, rest)
}

// alike groups executables by the rules that they have.
func alike(listed []string, rules []askedRule) [][]string {
	var groups [][]string
	index := map[string]int{}
	for _, path := range listed {
		var names []string
		for _, rule := range rulesOf(path, rules) {
			names = append(names, strconv.Quote(rule.name))
		}
		key := strings.Join(names, " ")
		i, known := index[key]
		if !known {
			i = len(groups)
			index[key] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], path)
	}
	return groups
}

// rulesOf lists the rules that may hold for an executable: those that name it,
// and those that name none.
func rulesOf(path string, rules []askedRule) []askedRule {
	return slices.DeleteFunc(slices.Clone(rules), func(a askedRule) bool {
		return len(a.binaries) > 0 && !slices.Contains(a.binaries, path)
	})
}

// algSocket looks at the socket: the kernel never reads the family of an address.
var algSocket = indexFilter{bindSocket, valueFilter{"Family", []string{strconv.Itoa(afalg.Family)}}}

// bindProbe reads an address that the kernel has copied already: another thread
// cannot change it.
func bindProbe() kprobe {
	return kprobe{
		Call:    "security_socket_bind",
		Message: deniedMessage,
		Args: []argument{
			{Index: bindSocket, Type: "socket", Label: "socket"},
			// The third argument says how long the address is.
			{Index: bindAddress, Type: "char_buf", SizeArgIndex: 3, Label: "address"},
		},
	}
}

func addressOf(rule askedRule) indexFilter {
	return indexFilter{bindAddress, valueFilter{"Prefix", rule.addresses}}
}

// firstNamespaces are asked for with every rule: in others a path may name any
// file, a uid and a capability belong to whoever made them, and there are the
// containers, which hold no rule.
var firstNamespaces = []namespaceFilter{
	{"Mnt", in([]string{"host_ns"})},
	{"User", in([]string{"host_ns"})},
}

var quiet = []action{{Action: "NoPost"}}

// allow adds a selector that ends the search for the subject of a rule.
func (k *kprobe) allow(rule askedRule, args ...indexFilter) {
	s := selector{MatchNamespaces: firstNamespaces, MatchArgs: args, MatchActions: quiet}
	if len(rule.binaries) > 0 {
		s.MatchBinaries = []valueFilter{in(rule.binaries)}
	}
	if len(rule.capabilities) > 0 {
		s.MatchCapabilities = []capabilityFilter{{"Effective", in(rule.capabilities)}}
	}
	if len(rule.users) > 0 {
		k.Data = []argument{{Index: callerUID, Type: "uint32", Source: "current_task", Resolve: "cred.euid.val", Label: "euid"}}
		s.MatchData = []indexFilter{{callerUID, valueFilter{"InMap", rule.users}}}
	}
	k.Selectors = append(k.Selectors, s)
}

// deny adds the selector that denies what none before it matches. The fallback
// is for a plan without an errno, since 0 would allow.
func (k *kprobe) deny(e plan.Errno, fallback string, args ...indexFilter) {
	errno := e.Number
	if errno == 0 {
		errno, _ = afalg.ErrnoByName(fallback)
	}
	if errno == 0 {
		errno = uint32(unix.EACCES)
	}
	k.Selectors = append(k.Selectors, selector{MatchArgs: args, MatchActions: []action{{"Override", -int(errno)}}})
}

func in(values []string) valueFilter { return valueFilter{"In", values} }
func equal(value string) valueFilter { return valueFilter{"Equal", []string{value}} }
