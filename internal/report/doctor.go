package report

import (
	"errors"
	"fmt"
	"reflect"
	"slices"

	"github.com/afalg-policy/afalg-policy/internal/term"
)

// Doctor is what doctor found on a host: what the kernel has, who uses AF_ALG, what
// is in force, who may use what, and what to do next.
type Doctor struct {
	Header                         // closed, open or undecided; Conclude sets it
	Host           DoctorHost      `json:"host"`
	Tool           Build           `json:"tool"`
	Policy         *Policy         `json:"policy,omitempty"` // whose rules allow; none was found without it
	Users          []User          `json:"users"`
	Layers         []Layer         `json:"layers"`
	Matrix         Matrix          `json:"matrix"`
	Next           []Step          `json:"next"` // the least change first
	CanGo          []Expiry        `json:"can-go"`
	Contradictions []Contradiction `json:"contradictions"`
	Unasked        []Unasked       `json:"unasked"`
}

// DoctorHost is the host, and what is known of its kernel.
type DoctorHost struct {
	Name    string `json:"name"`
	ID      string `json:"id,omitempty"` // tells hosts of one name apart; made from the machine's, and not it
	Time    string `json:"time"`         // when it was asked, RFC 3339
	System  string `json:"system"`       // "Debian GNU/Linux 12 (bookworm)"
	Kernel  string `json:"kernel"`       // the release
	Machine string `json:"machine"`
	AFALG   string `json:"af-alg"` // HasBuiltIn, HasModule, HasNone or Unknown
	Root    bool   `json:"root"`   // it was asked with root's rights
	Facts   []Fact `json:"facts"`  // further ones, in the order to print
}

// What a kernel has of AF_ALG.
const (
	HasBuiltIn = "built in"
	HasModule  = "module"
	HasNone    = "absent"
)

// Unknown is the word for what could not be asked. It is never one for what was
// asked and not found.
const Unknown = "unknown"

// Fact is one of a host, with where it was read.
type Fact struct {
	Name   string `json:"name"`  // "modules loaded", "crypto.af_alg_restrict", "LSMs"
	Value  string `json:"value"` // Unknown if it could not be read
	Source string `json:"source,omitempty"`
}

// User is one that uses AF_ALG, or is known to do so elsewhere.
type User struct {
	Name       string     `json:"name"`  // "cryptsetup"; of one that nobody knows, the executable
	State      string     `json:"state"` // Used, Unused or Unknown
	Executable string     `json:"executable,omitempty"`
	Unit       string     `json:"unit,omitempty"`
	Container  string     `json:"container,omitempty"`
	Algorithms []string   `json:"algorithms,omitempty"`
	Seen       string     `json:"seen,omitempty"` // last, RFC 3339
	Evidence   []Evidence `json:"evidence"`       // Unused takes some too: what was asked
}

// States of a user.
const (
	Used   = "used"
	Unused = "unused"
)

// Evidence is what a state was concluded from.
type Evidence struct {
	Kind string `json:"kind"` // "socket", "package", "binary", "unit", "log"
	Text string `json:"text"`
}

// Layer is a means that may close something: a filter, a module that cannot load, a
// program of the kernel half.
type Layer struct {
	Name    string   `json:"name"`     // "seccomp", "modprobe.d", "kernel half"
	Subject string   `json:"subject"`  // whom it is for: "the host", "containers of docker"
	InForce string   `json:"in-force"` // Yes, No or Unknown
	Closes  []string `json:"closes"`   // names of columns
	Reason  string   `json:"reason"`
}

// Matrix says who may use what: subjects by what they could use.
type Matrix struct {
	Columns []Column `json:"columns"`
	Rows    []Row    `json:"rows"` // the worst first, as Conclude orders them
}

// Column is a type of algorithms, or a denied class.
type Column struct {
	Name  string `json:"name"`  // short: "hash", "AF_RXRPC"
	Title string `json:"title"` // what it is, in words
}

// Row is subjects that may use the same.
type Row struct {
	Subjects []Subject `json:"subjects"`
	Cells    []Cell    `json:"cells"` // one a column
}

// Subject is somebody whose access is a matter of its own.
type Subject struct {
	Name      string `json:"name"`
	Kind      string `json:"kind"` // "container", "unit", "process"
	Container string `json:"container,omitempty"`
	Unit      string `json:"unit,omitempty"`
	Processes int    `json:"processes"`
}

// Cell is whether subjects may use what a column is about.
type Cell struct {
	State   string   `json:"state"`             // one of CellStates
	By      []string `json:"by,omitempty"`      // names of the layers that close it
	Rule    string   `json:"rule,omitempty"`    // that allows it; where none does, Reason says why it is expected
	Witness string   `json:"witness,omitempty"` // the call that is open
	Reason  string   `json:"reason,omitempty"`
}

// States of a cell besides Open, Allowed and Unknown.
const (
	ProvedClosed   = "proved closed"
	UnprovedClosed = "closed, not proved" // by what was not proved
	LeftOpen       = "left open"          // open, and nobody asked for it to be closed
)

// CellStates are in the order of concern, the worst last.
var CellStates = []string{ProvedClosed, UnprovedClosed, LeftOpen, Allowed, Unknown, Open}

// Step is something to do.
type Step struct {
	Title   string   `json:"title"`
	Command string   `json:"command"`
	Closes  []string `json:"closes,omitempty"` // names of columns
	Breaks  []string `json:"breaks"`           // whom, and how; nobody who is known without any
	When    string   `json:"when"`             // it takes effect: "now", "new processes", "reboot"
	Undo    string   `json:"undo,omitempty"`
}

// Expiry is something that is needed no more.
type Expiry struct {
	What    string `json:"what"` // "/etc/modprobe.d/afalg-policy.conf", "rule hmaccalc"
	Why     string `json:"why"`
	Command string `json:"command,omitempty"`
}

// Contradiction is two sources that do not agree. Neither is believed in silence.
type Contradiction struct {
	About  string `json:"about"`
	Claims []Fact `json:"claims"`
	Taken  string `json:"taken"` // the value that this report goes by
}

// Unasked is what could not be asked, and why.
type Unasked struct {
	What string `json:"what"`
	Why  string `json:"why"`
}

// NewDoctor is an empty report: all lists are there, and nothing is decided.
func NewDoctor(b Build) *Doctor {
	return &Doctor{
		Header: NewHeader(doctorCommand, Undecided), Tool: b,
		Host:  DoctorHost{AFALG: Unknown, Facts: []Fact{}},
		Users: []User{}, Layers: []Layer{}, Matrix: Matrix{Columns: []Column{}, Rows: []Row{}},
		Next: []Step{}, CanGo: []Expiry{}, Contradictions: []Contradiction{}, Unasked: []Unasked{},
	}
}

// Add puts a subject into the row of those that may use the same. There is one cell
// for each column.
func (m *Matrix) Add(s Subject, cells ...Cell) error {
	if len(cells) != len(m.Columns) {
		return fmt.Errorf("%s: there are %s for %s", s.Name, term.Count(len(cells), "cell"), term.Count(len(m.Columns), "column"))
	}
	for i, c := range cells {
		if err := c.check(); err != nil {
			return fmt.Errorf("%s: column %s: %w", s.Name, m.Columns[i].Name, err)
		}
	}
	i := slices.IndexFunc(m.Rows, func(r Row) bool { return reflect.DeepEqual(r.Cells, cells) })
	if i < 0 {
		i = len(m.Rows)
		m.Rows = append(m.Rows, Row{Cells: cells})
	}
	m.Rows[i].Subjects = append(m.Rows[i].Subjects, s)
	return nil
}

// check refuses a cell that says something without its ground.
func (c Cell) check() error {
	switch {
	case !slices.Contains(CellStates, c.State):
		return fmt.Errorf("%q is no state of a cell", c.State)
	case c.State == Allowed && c.Rule == "" && c.Reason == "":
		return errors.New("allowed, and neither by a rule nor for a reason")
	case c.State != Allowed && c.Rule != "":
		return fmt.Errorf("%s, and rule %q allows it", c.State, c.Rule)
	case c.State == Open && c.Witness == "":
		return errors.New("open without a witness")
	}
	return nil
}

// Conclude sets the verdict, and puts the worst rows first.
func (d *Doctor) Conclude() {
	slices.SortStableFunc(d.Matrix.Rows, func(a, b Row) int { return badness(b.State()) - badness(a.State()) })
	d.Verdict = d.Matrix.verdict()
}

// verdict is the worst of the rows. Where nothing was asked, or nothing is to be
// closed, nothing is decided.
func (m *Matrix) verdict() string {
	if !slices.ContainsFunc(m.Rows, func(r Row) bool { return r.State() != LeftOpen }) {
		return Undecided
	}
	verdict := Closed
	for _, r := range m.Rows {
		switch r.State() {
		case ProvedClosed, UnprovedClosed, LeftOpen, Allowed:
		case Open:
			return Open
		default:
			verdict = Undecided
		}
	}
	return verdict
}

// State is that of the cell that is of most concern. What nobody asked to be closed
// is a state of the subjects only if there is nothing else.
func (r Row) State() string {
	worst := LeftOpen
	for _, c := range r.Cells {
		if c.State != LeftOpen && (worst == LeftOpen || badness(c.State) > badness(worst)) {
			worst = c.State
		}
	}
	return worst
}

// badness orders the states. A word that nobody knows is as bad as any.
func badness(state string) int {
	if i := slices.Index(CellStates, state); i >= 0 {
		return i
	}
	return len(CellStates)
}

// Counts is how many subjects are in each state.
func (m *Matrix) Counts() map[string]int {
	counts := map[string]int{}
	for _, r := range m.Rows {
		counts[r.State()] += len(r.Subjects)
	}
	return counts
}

// leftOpen are the names of the columns that are open to some subjects, as nobody
// asked for them to be closed.
func (m *Matrix) leftOpen() (names []string) {
	for i, c := range m.Columns {
		if slices.ContainsFunc(m.Rows, func(r Row) bool { return r.Cells[i].State == LeftOpen }) {
			names = append(names, c.Name)
		}
	}
	return names
}
