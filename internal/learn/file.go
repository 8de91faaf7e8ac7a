package learn

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

// Bounds of the comment: bytes of a line, about, and uses listed.
const (
	maxLine   = 500
	maxListed = 100
)

// File returns the policy as a file. A comment heads it: how it was made, if
// made is given, that somebody has to read it, and what of the recording it
// does not express.
func (r *Recorder) File(name, made string) []byte {
	var b bytes.Buffer
	if made != "" {
		comment(&b, made)
	}
	comment(&b, "Learned from recorded uses. Read it before you use it: it allows every use during the")
	comment(&b, "recording, intended or not, and denies all others.")
	if len(r.Policy(name).Rules) == 0 {
		comment(&b, "NOTHING WAS LEARNED: this policy denies everything.")
	}
	if lost := r.Lost(); lost > 0 {
		comment(&b, fmt.Sprintf("THE RECORDER WAS FULL: %s not in it.", times(lost, "further use is", "further uses are")))
	}
	writeUnexpressed(&b, r.Unexpressed())
	unused, more := r.Unused()
	writeUnused(&b, unused, more)
	b.Write(policy.Format(r.Policy(name)))
	return b.Bytes()
}

func writeUnexpressed(b *bytes.Buffer, all []Unexpressed) {
	if len(all) == 0 {
		return
	}
	comment(b, "No rule can stand for these, they are denied:")
	for _, e := range all[:min(len(all), maxListed)] {
		comment(b, "- "+e.String())
	}
	if more := len(all) - maxListed; more > 0 {
		comment(b, fmt.Sprintf("- and %d more", more))
	}
}

// writeUnused lists the probes. A program may end at its start when one is
// denied, so the reader must see them.
func writeUnused(b *bytes.Buffer, all []Use, more int) {
	if len(all) == 0 {
		return
	}
	comment(b, "Bound and never used, so these are denied. If a program then misses one, add it to its rule:")
	for _, u := range all[:min(len(all), maxListed)] {
		comment(b, "- "+u.String())
	}
	if more += max(len(all)-maxListed, 0); more > 0 {
		comment(b, fmt.Sprintf("- and %d more", more))
	}
}

// String returns the algorithm and the executable, for people.
func (u Use) String() string {
	who := "an unknown executable"
	if u.Binary != "" {
		who = printable.Cut(strconv.Quote(u.Binary), 200)
	}
	return u.Algorithm.String() + " by " + who
}

// String returns one line for people.
func (e Unexpressed) String() string {
	text := fmt.Sprintf("%s, %s: %s", e.Use, times(e.Count, "time", "times"), e.Reason)
	return printable.Cut(text, maxLine)
}

func times(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// comment writes one line, which the text cannot leave.
func comment(b *bytes.Buffer, text string) { b.WriteString("# " + printable.Cut(text, maxLine) + "\n") }
