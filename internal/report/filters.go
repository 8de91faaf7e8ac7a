package report

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/filter/seccomp"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/parallel"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// Filters is what verify answers of filters.
type Filters struct {
	Header
	Failed     bool            `json:"failed"`     // whether --fail-on counts anything that is not ignored
	Libseccomp string          `json:"libseccomp"` // the version that compiled
	Filters    []Filter        `json:"filters"`
	Containers []Container     `json:"containers"` // of manifests
	Looked     source.Looked   `json:"looked"`
	Findings   []Finding       `json:"findings"`
	Broken     []source.Broken `json:"broken"` // what could not be used
}

// Filter is one compiled filter, and the answers about it.
type Filter struct {
	Name         string   `json:"name"`
	File         string   `json:"file,omitempty"`
	Kind         string   `json:"kind"`
	Machine      string   `json:"machine"`
	Runtime      string   `json:"runtime,omitempty"`
	Level        int      `json:"level,omitempty"`
	Programs     int      `json:"programs"`
	Instructions int      `json:"instructions"`
	Verdict      string   `json:"verdict"`                 // closed or open
	OfContainers bool     `json:"of-containers,omitempty"` // was asked for containers of manifests, whose verdicts count
	Answers      []Answer `json:"answers"`
}

// Finding is a finding in a file.
type Finding struct {
	File string `json:"file"`
	verify.Finding
	Ignored string `json:"ignored,omitempty"` // the reason, of the ignore file
}

// Answer is what a filter does with one call that was asked about.
type Answer struct {
	About   string   `json:"about"` // a denied class, or the text of a query
	ABI     string   `json:"abi"`
	Route   string   `json:"route,omitempty"`
	Call    string   `json:"call"`
	Nr      uint32   `json:"nr"`
	Verdict string   `json:"verdict"` // closed, open, undecided or listener
	Actions []string `json:"actions"`
	Witness *Witness `json:"witness,omitempty"`
	Reason  string   `json:"reason,omitempty"`
	Ignored string   `json:"ignored,omitempty"` // the reason, of the ignore file
}

// Witness holds the registers of a call as a filter sees them, in hexadecimal:
// JSON numbers lose the lower bits of large ones.
type Witness struct {
	Arch string    `json:"arch"`
	Nr   uint32    `json:"nr"`
	IP   string    `json:"ip"`
	Args [6]string `json:"args"`
}

func newWitness(d *cbpf.Data) *Witness {
	if d == nil {
		return nil
	}
	w := &Witness{Arch: fmt.Sprintf("%#x", d.Arch), Nr: d.Nr, IP: fmt.Sprintf("%#x", d.IP)}
	for i, a := range d.Args {
		w.Args[i] = fmt.Sprintf("%#x", a)
	}
	return w
}

// String writes the call as one line, leaving out what is zero.
func (w *Witness) String() string {
	number := func(hex string) uint64 {
		n, _ := strconv.ParseUint(hex, 0, 64) // of a report that somebody else wrote: it shows less then
		return n
	}
	d := cbpf.Data{Arch: uint32(number(w.Arch)), Nr: w.Nr, IP: number(w.IP)}
	for i, a := range w.Args {
		d.Args[i] = number(a)
	}
	return d.String()
}

// wordOf is a state in the JSON form.
func wordOf(s verify.State) string {
	switch s {
	case verify.Closed:
		return Closed
	case verify.Open:
		return Open
	case verify.Listener:
		return Listener
	}
	return Undecided
}

// about is one thing to ask of one source.
type about struct {
	what     string
	question verify.Question
}

// Questions are what every source is asked.
type Questions struct {
	Policy   *plan.Plan // by which containers of manifests are judged; nil for none
	Nodes    source.Nodes
	Families []uint32 // numbers of socket families, besides AF_ALG
	// Sockets, Options and UserNamespaces are asked about too.
	Sockets        []afalg.Sockets
	Options        []afalg.SocketOption
	UserNamespaces bool
	Queries        []*verify.Query
}

// Deny adds what a policy denies.
func (q *Questions) Deny(p *plan.Plan) {
	for _, s := range p.ClosedSockets() {
		switch {
		case s.Family == afalg.Family: // is asked about always
		case s.Whole():
			q.Families = append(q.Families, s.Family)
		default:
			q.Sockets = append(q.Sockets, s)
		}
	}
	q.Options = append(q.Options, p.ClosedOptions()...)
	q.UserNamespaces = q.UserNamespaces || p.UserNamespaces
}

// list returns everything to ask of a source, families first.
func (q Questions) list(s source.Source) ([]about, error) {
	classes := verify.Classes{
		Families: append([]uint32{afalg.Family}, q.Families...), Sockets: q.Sockets, Options: q.Options, UserNamespaces: q.UserNamespaces,
	}
	asked, err := classes.Questions(s.ABIs)
	if err != nil {
		return nil, err
	}
	var all []about
	for _, class := range asked {
		for _, question := range class.Questions {
			all = append(all, about{class.About, question})
		}
	}
	for _, query := range q.Queries {
		questions, err := query.Questions(s.ABIs)
		if err != nil {
			return nil, err
		}
		for _, question := range questions {
			all = append(all, about{query.Text, question})
		}
	}
	return all, nil
}

// Ask asks every source, the same filter once. An error is a *verify.QueryError
// or an *UnaskedError for a query, and a *profile.NamedError for a source.
func (q Questions) Ask(in source.Input, memo *verify.Memo) (*Filters, error) {
	r := &Filters{Header: NewHeader("verify", Closed), Libseccomp: seccomp.Version(), Filters: make([]Filter, len(in.Sources)),
		Containers: []Container{}, Looked: in.Looked, Findings: []Finding{}, Broken: append([]source.Broken{}, in.Broken...)}
	for _, f := range in.Findings {
		r.Findings = append(r.Findings, Finding{File: f.File, Finding: f.Finding})
	}
	err := parallel.Each(len(in.Sources), func(i int) (err error) {
		r.Filters[i], err = q.filter(memo, in.Sources[i])
		return err
	})
	if err != nil {
		return nil, err
	}
	r.judgeContainers(in.Pods, q)
	has := func(verdict string) bool {
		return slices.ContainsFunc(r.Containers, func(c Container) bool { return c.Verdict == verdict })
	}
	if slices.ContainsFunc(r.Filters, func(f Filter) bool { return f.Verdict != Closed && !f.OfContainers }) || has(Open) {
		r.Verdict = Open
	} else if len(in.Broken) > 0 || len(in.Sources)+len(r.Containers) == 0 || has(Undecided) {
		r.Verdict = Undecided // nobody knows of what was not read
	}
	return r, q.allAsked(r)
}

func (q Questions) filter(memo *verify.Memo, s source.Source) (Filter, error) {
	f := Filter{Name: s.Name, File: s.File, Kind: s.Kind, Machine: s.Machine, Runtime: s.Runtime, Level: s.Level, OfContainers: s.OfContainers,
		Programs: len(s.Filter), Instructions: s.Instructions(), Verdict: Closed, Answers: []Answer{}}
	all, verdicts, err := q.answer(memo, s)
	if err != nil {
		return Filter{}, err
	}
	for i, v := range verdicts {
		f.Answers = append(f.Answers, Answer{
			About: all[i].what, ABI: v.Call.ABI.Name, Route: string(v.Call.Route), Call: v.Call.Name, Nr: v.Call.Nr,
			Verdict: wordOf(v.State), Actions: append([]string{}, v.Actions...), Witness: newWitness(v.Witness), Reason: v.Reason,
		})
		if v.State != verify.Closed {
			f.Verdict = Open
		}
	}
	return f, nil
}

// answer asks a source everything.
func (q Questions) answer(memo *verify.Memo, s source.Source) ([]about, []verify.Verdict, error) {
	all, err := q.list(s)
	if err != nil {
		return nil, nil, err
	}
	verdicts := make([]verify.Verdict, len(all))
	err = parallel.Each(len(all), func(i int) (err error) {
		verdicts[i], err = memo.Ask(s.Filter, all[i].question, verify.Options{})
		return err
	})
	if err == nil {
		err = verify.OpenReplaceable(s.Filter, s.ABIs, verdicts, memo.Ask)
	}
	if err != nil {
		return nil, nil, &profile.NamedError{Name: s.Name, Err: err}
	}
	return all, verdicts, nil
}

// allAsked fails if a query concerns none of the filters: no answer is no yes.
func (q Questions) allAsked(r *Filters) error {
	for _, query := range q.Queries {
		asked := func(a Answer) bool { return a.About == query.Text }
		if len(r.Filters) > 0 && !slices.ContainsFunc(r.Filters, func(f Filter) bool { return slices.ContainsFunc(f.Answers, asked) }) {
			return &UnaskedError{query.Text}
		}
	}
	return nil
}

// UnaskedError is a query that concerns none of the filters.
type UnaskedError struct{ Query string }

func (e *UnaskedError) Error() string {
	return fmt.Sprintf("%q: none of the filters is for that ABI", e.Query)
}

// Ignore marks what the ignore file lists, and names the entries that list
// nothing.
func (r *Filters) Ignore(list IgnoreFile) (unused []string) {
	for i := range r.Filters {
		f := &r.Filters[i]
		for j := range f.Answers {
			if a := &f.Answers[j]; a.Verdict != Closed {
				a.Ignored = list.reason(ruleOpen, f.File)
			}
		}
	}
	r.ignoreContainers(list)
	for i := range r.Findings {
		f := &r.Findings[i]
		f.Ignored = list.reason(f.Rule, f.File)
	}
	return list.unused()
}

// failOn are the words of --fail-on, the least demanding first, and what counts
// besides what is open.
var failOn = []struct {
	word   string
	levels []verify.Level
}{
	{"none", nil},
	{"open", nil},
	{string(verify.Error), []verify.Level{verify.Error}},
	{string(verify.Warning), []verify.Level{verify.Error, verify.Warning}},
	{string(verify.Note), []verify.Level{verify.Error, verify.Warning, verify.Note}},
}

// Judge decides whether the report fails, by a word of --fail-on: "none", "open",
// or the least level of findings that count besides what is open.
func (r *Filters) Judge(word string) {
	at := slices.IndexFunc(failOn, func(f struct {
		word   string
		levels []verify.Level
	}) bool {
		return f.word == word
	})
	switch at {
	case 0:
		return
	case -1: // a word of a later program: everything counts
		at = len(failOn) - 1
	}
	for _, f := range r.Filters {
		for _, a := range f.Answers {
			r.Failed = r.Failed || !f.OfContainers && a.Verdict != Closed && a.Ignored == ""
		}
	}
	if len(r.Filters)+len(r.Containers) == 0 {
		r.Failed = true // nothing was proved
	}
	for _, c := range r.Containers {
		r.Failed = r.Failed || c.counts()
	}
	for _, f := range r.Findings {
		r.Failed = r.Failed || f.Ignored == "" && slices.Contains(failOn[at].levels, f.Level)
	}
}
