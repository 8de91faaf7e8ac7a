package verify

import (
	"cmp"
	"slices"
)

// Level is how much a finding matters.
type Level string

const (
	Error   Level = "error"   // the filter does not do what the text says
	Warning Level = "warning" // it may not do what its author meant
	Note    Level = "note"    // worth knowing
)

// Finding is something wrong in the text of a profile, or easy to miss.
type Finding struct {
	Rule    string `json:"rule"` // the ID of one of Checks
	Level   Level  `json:"level"`
	Line    int    `json:"line,omitempty"`   // from 1; 0 if there is no text
	Column  int    `json:"column,omitempty"` // from 1, in characters
	Message string `json:"message"`
	Fix     string `json:"fix"`
}

// Check describes one kind of finding.
type Check struct {
	ID    string
	Level Level  // the highest that its findings have
	Title string // one line, without a full stop
	Why   string
}

// The IDs, by which SARIF consumers keep their suppressions.
const (
	ruleUnfiltered   = "unfiltered"
	ruleDefault      = "equals-default"
	ruleOr           = "or-not-and"
	ruleLong         = "long-rule"
	ruleWide         = "compares-64-bits"
	ruleSwallowed    = "deny-inside-allow"
	ruleMissingABI   = "missing-abi"
	ruleNoABI        = "not-an-abi"
	ruleCompanion    = "socketcall-companion"
	ruleSocketcall   = "socketcall-reachable"
	ruleIOUring      = "io_uring-reachable"
	ruleListener     = "listener-replaceable"
	ruleArchIgnored  = "arch-ignored"
	ruleUnknownCall  = "unknown-call"
	ruleUnknownKey   = "unknown-key"
	ruleKeyOfAnother = "key-of-another-format"
	ruleIdle         = "idle-rule"
)

// Checks lists every kind of finding, sorted by ID.
func Checks() []Check {
	checks := []Check{
		{ruleUnfiltered, Error, "No seccomp profile",
			"A config.json without linux.seccomp, and a profile without a default action and rules, run the container without a filter: every route is open."},
		{ruleIdle, Note, "A rule names no system call",
			"The runtimes load such a rule, and it does nothing. A tool that patched the profile may have taken the names out."},
		{ruleDefault, Warning, "A rule is skipped because its action equals the default action",
			"The runtimes leave such a rule out without a word. If a wider rule allows the call, the denial that the text shows is not there."},
		{ruleOr, Error, "Comparisons that look like AND are OR",
			"libseccomp takes one comparison for each argument. Where an index stands twice, the runtimes make every comparison a rule of its own, so it is enough that one of them holds."},
		{ruleLong, Error, "A rule has more than six comparisons",
			"crun reads six and ignores the rest; runc makes every comparison a rule of its own."},
		{ruleWide, Warning, "64 bits of an int argument are compared",
			"The kernel takes the lower 32 bits of the register; the filter compares all 64. A call with upper bits set passes the comparison and means the same."},
		{ruleSwallowed, Error, "A denial inside a wider allowance has no effect",
			"libseccomp unites rules: where a rule that allows and one that denies both match, in whatever order they stand, the filter may allow."},
		{ruleMissingABI, Note, "An ABI of the machine is not listed",
			"Calls through an ABI that the profile does not list are killed, whatever the rules say: the routes through it are closed, and its programs do not run."},
		{ruleNoABI, Error, "The compiled program compares the ABI word with something that is no ABI",
			"libseccomp up to 2.6.1 compiles some profiles to code that never loads the system call number for an ABI, and compares the ABI word with it instead. Nothing is denied there."},
		{ruleCompanion, Warning, "A condition on socket brings a rule for socketcall that the text does not show",
			"On ABIs with socketcall (i386, s390, ppc, mips) libseccomp adds one with the action of the condition, for every socket family: the family is behind a pointer."},
		{ruleSocketcall, Warning, "socketcall is allowed, and its family cannot be filtered",
			"32-bit programs reach every socket family through socketcall: the family is behind a pointer that a filter cannot follow."},
		{ruleIOUring, Warning, "io_uring is allowed, and makes sockets that no filter sees",
			"IORING_OP_SOCKET makes a socket without a system call of its own."},
		{ruleListener, Error, "The listener can be replaced",
			"A call that is left to a listener is closed only while that listener is there, or as long as nobody can load another one: of equal actions the newest filter's counts."},
		{ruleArchIgnored, Warning, "An architecture is listed and never used",
			"No machine that the profile is for has this ABI, or the runtime takes another entry."},
		{ruleUnknownCall, Warning, "A system call is not known to libseccomp",
			"The runtimes skip a rule for a call that their libseccomp does not know: the default action holds."},
		{ruleUnknownKey, Warning, "A key is not known to the runtimes",
			"They ignore it without a word. A misspelt args makes a rule unconditional."},
		{ruleKeyOfAnother, Error, "A key of the Docker format stands in an OCI configuration",
			"runc and crun know no conditions: a rule with includes or excludes always applies, and archMap lists nothing."},
	}
	slices.SortFunc(checks, func(a, b Check) int { return cmp.Compare(a.ID, b.ID) })
	return checks
}

// sortFindings puts findings in the order of the text, and keeps the first one
// of a rule in each place.
func sortFindings(all []Finding) []Finding {
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column), cmp.Compare(a.Rule, b.Rule))
	})
	return slices.CompactFunc(all, func(a, b Finding) bool {
		return a.Line == b.Line && a.Column == b.Column && a.Rule == b.Rule
	})
}
