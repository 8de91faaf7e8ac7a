package learn

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// The comment is bounded by these: bytes of a line, about, and uses listed.
const (
	maxLine   = 500
	maxListed = 100
)

// File is the policy as a file. A comment heads it: what made it, if that is
// said, that it is to be read, and what of the recording it does not express.
func (r *Recorder) File(name, made string) []byte {
	var b bytes.Buffer
	if made != "" {
		comment(&b, made)
	}
	comment(&b, "Learned from what was used. Read it before you use it: it allows what ran while it was")
	comment(&b, "learned, be it meant or not, and denies what did not run.")
	if lost := r.Lost(); lost > 0 {
		comment(&b, fmt.Sprintf("THE RECORDER WAS FULL: %s not in it.", times(lost, "further use is", "further uses are")))
	}
	writeUnexpressed(&b, r.Unexpressed())
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

// String says it for people, in one line.
func (e Unexpressed) String() string {
	who := "an unknown executable"
	if e.Use.Binary != "" {
		who = shown(strconv.Quote(e.Use.Binary), 200)
	}
	text := fmt.Sprintf("%s by %s, %s: %s", e.Use.Algorithm, who, times(e.Count, "time", "times"), e.Reason)
	return shown(text, maxLine)
}

func times(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// comment writes one line, which the text cannot leave.
func comment(b *bytes.Buffer, text string) { b.WriteString("# " + shown(text, maxLine) + "\n") }

// shown escapes what a terminal or an editor would not show, and what may not
// stand in a policy, and cuts the text to about the limit.
func shown(text string, limit int) string {
	var b strings.Builder
	for _, r := range text {
		if b.Len() >= limit {
			return b.String() + "…"
		}
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}
