package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/agext/levenshtein"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// near finds the candidate that a misspelt word probably meant: the one with
// the fewest edits, ignoring case and hyphens, the first of several. It finds
// none if it takes more than two edits, or more than one in a word of three
// letters.
func near(word string, candidates []string) (string, bool) {
	const longest = 2 * afalg.MaxLongName // the cost is the product of the lengths
	if bare(word) == "" || len(word) > longest {
		return "", false
	}
	word = bare(word)
	best, found := 2, ""
	if len(word) < 4 {
		best = 1
	}
	for _, c := range candidates {
		if _, rest, _ := strings.Cut(c, "_"); bare(rest) == word {
			return c, true // "net_admin" without its "CAP_"
		}
		target := bare(c)
		if d := len(word) - len(target); d > best || -d > best {
			continue
		}
		if d := levenshtein.Distance(word, target, nil); d < best || d == best && found == "" {
			best, found = d, c
		}
	}
	return found, found != ""
}

// Near finds the candidate that a misspelt word probably meant.
func Near(word string, candidates []string) (string, bool) { return near(word, candidates) }

// bare removes the differences of common spellings.
func bare(word string) string {
	return strings.NewReplacer("-", "", "_", "").Replace(strings.ToLower(word))
}

// Suggest finds the well known algorithm that a name of the type probably
// meant: a near spelling ("hmac(sha-512)" for "hmac(sha512)"), or the same name
// under the type to which it belongs. It finds nothing for a well known name,
// and for one that is near to none.
func Suggest(t afalg.Type, name string) (afalg.Algorithm, bool) {
	known := afalg.WellKnown(t)
	if _, exact := slices.BinarySearch(known, name); exact {
		return afalg.Algorithm{}, false
	}
	for _, other := range afalg.Types() {
		if _, exact := slices.BinarySearch(afalg.WellKnown(other), name); exact {
			return afalg.Algorithm{Type: other, Name: name}, true
		}
	}
	guess, found := near(name, known)
	return afalg.Algorithm{Type: t, Name: guess}, found
}

// didYouMean ends a message about an unknown word: with a near candidate, or
// with all of them where the list is short enough to read.
func (d *decoder) didYouMean(word string, candidates []string) string {
	if d.spendHint() {
		if c, found := near(word, candidates); found {
			return fmt.Sprintf("; did you mean %q?", c)
		}
	}
	if len(candidates) <= 10 {
		return ": write " + oneOf(candidates)
	}
	return ""
}

// spendHint bounds the work that suggestions cost in a file of nonsense.
func (d *decoder) spendHint() bool {
	d.hints++
	return d.hints <= 200
}

// oneOf joins words for a sentence: "a, b or c".
func oneOf(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	last := len(words) - 1
	return strings.Join(words[:last], ", ") + " or " + words[last]
}
