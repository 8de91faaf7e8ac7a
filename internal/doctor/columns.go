package doctor

import (
	"fmt"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/report"
)

// column is what subjects could use: a type of algorithms, or a class of sockets or
// calls beside AF_ALG.
type column struct {
	report.Column
	wanted    bool       // it is to be closed
	modules   []string   // of the kernel; without any of them there is none
	initcalls []string   // any of which initcall_blacklist may name
	config    string     // the option of the kernel that has it, CONFIG_ left out; "" if modules say it
	typ       afalg.Type // of algorithms; "" for a class
	sockets   bool       // it is a class of sockets
	breaks    string     // who is known to use the class
	family    uint32     // of sockets, to ask filters about; 0 if queries do
	queries   []string   // to ask filters
}

const (
	pageCache  = "page-cache" // the preset of classes that were used for attacks
	namespaces = "user namespaces"
)

// columnsOf lists the types of algorithms, the classes by which page caches were
// written, user namespaces, and what the policy closes besides. Wanted is what the
// policy closes; without one, all but user namespaces, which half of the world uses.
func columnsOf(p *plan.Plan) []column {
	all := []column{
		algorithms(afalg.Hash, "hashes and message authentication"),
		algorithms(afalg.Skcipher, "ciphers"),
		algorithms(afalg.AEAD, "authenticated ciphers"),
		algorithms(afalg.RNG, "random numbers"),
	}
	for _, c := range policy.Classes() {
		attacked := slices.Contains(c.Presets, pageCache)
		if attacked || c.UserNamespaces {
			all = append(all, ofClass(c, closesWhole(p, c) || p == nil && attacked))
		}
	}
	if p == nil {
		return all
	}
	for _, f := range p.Families {
		all = addColumn(all, ofSockets(afalg.Sockets{Family: f.Number}, true))
	}
	for _, s := range p.Sockets {
		all = addColumn(all, ofSockets(s.Class(), true))
	}
	for _, o := range p.SocketOptions {
		all = addColumn(all, ofOption(o.Numbers(), true))
	}
	return all
}

// addColumn adds what is not there yet.
func addColumn(all []column, c column) []column {
	if slices.ContainsFunc(all, func(o column) bool { return o.Name == c.Name }) {
		return all
	}
	for _, k := range policy.Classes() {
		if k.String() == c.Name {
			c = ofClass(k, c.wanted)
		}
	}
	return append(all, c)
}

// closesWhole reports whether a plan closes all of a class.
func closesWhole(p *plan.Plan, c policy.Class) bool {
	switch {
	case p == nil:
		return false
	case c.Socket != nil:
		return slices.ContainsFunc(p.ClosedSockets(), func(s afalg.Sockets) bool { return s.Covers(c.Socket.Class()) })
	}
	return p.ClosesClass(c)
}

func algorithms(t afalg.Type, title string) column {
	module := "algif_" + string(t)
	return column{
		Column: report.Column{Name: string(t), Title: title + ", by AF_ALG"}, wanted: true, typ: t, family: afalg.Family,
		modules: []string{"af_alg", module}, initcalls: []string{"af_alg_init", module + "_init"},
	}
}

// ofClass is a column for a class that the catalogue has.
func ofClass(c policy.Class, wanted bool) (col column) {
	switch {
	case c.Socket != nil:
		col = ofSockets(c.Socket.Class(), wanted)
	case c.SocketOption != nil:
		col = ofOption(c.SocketOption.Numbers(), wanted)
	default:
		col = column{Column: report.Column{Name: c.String()}, wanted: wanted, config: "USER_NS",
			queries: []string{"unshare(flags&CLONE_NEWUSER)", "clone(flags&CLONE_NEWUSER)", "clone3"}}
	}
	col.Title, col.breaks, col.initcalls = c.Why, strings.TrimSuffix(c.Breaks, "."), c.Initcalls
	if len(c.Modules) > 0 { // further ones are ways to carry the family
		col.modules = c.Modules[:1]
	}
	return col
}

func ofSockets(s afalg.Sockets, wanted bool) column {
	col := column{Column: report.Column{Name: s.String(), Title: "the policy closes it"}, wanted: wanted, sockets: true}
	col.family, col.queries = askSockets(s)
	return col
}

func ofOption(o afalg.SocketOption, wanted bool) column {
	return column{Column: report.Column{Name: o.String(), Title: "the policy closes it"}, wanted: wanted,
		queries: []string{fmt.Sprintf("setsockopt(level=%d, optname=%d)", o.Level, o.Option)}}
}

// askSockets is how filters are asked about a class of sockets: a family by the routes
// to it, a narrower one by queries. socketcall hides what it makes.
func askSockets(s afalg.Sockets) (family uint32, queries []string) {
	if s.Whole() {
		return s.Family, nil
	}
	what := fmt.Sprintf("family=%d", s.Family)
	if s.HasProtocol {
		what += fmt.Sprintf(", protocol=%d", s.Protocol)
	}
	if s.Type != 0 {
		what += ", type=" + afalg.SocketTypeName(s.Type)
	}
	return 0, []string{"socket(" + what + ")", "socketcall(call=1)"}
}

// questions are what every filter of the host is asked. A query that no ABI of the
// machine has a call for is left out.
func questions(columns []column, abis []afalg.ABI) (q report.Questions, err error) {
	asked := map[string]bool{}
	for _, c := range columns {
		if c.family != 0 && c.family != afalg.Family {
			q.Families = append(q.Families, c.family)
		}
		for _, text := range c.queries {
			query, err := verify.ParseQuery(text)
			if err != nil {
				return q, err
			}
			if of, err := query.Questions(abis); err == nil && len(of) > 0 && !asked[text] {
				asked[text] = true
				q.Queries = append(q.Queries, query)
			}
		}
	}
	return q, nil
}

// asks reports whether an answer of a filter is about the column. io_uring makes
// sockets of every family past all filters.
func (c column) asks(call report.Call) bool {
	switch {
	case call.Route == string(afalg.RouteIOUring):
		return c.typ != "" || c.sockets
	case c.family != 0:
		return call.About == afalg.FamilyName(c.family)
	}
	return slices.Contains(c.queries, call.About)
}
