package profile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/agext/levenshtein"
)

// Suggest ends a message about an unknown word with the candidate that was
// probably meant: two edits away at most, one for a short word. Candidates of
// one kind begin with the same prefix, which the word may lack.
func Suggest[T any](prefix, word string, candidates map[string]T) string {
	const longest = 64
	bare := strings.TrimPrefix(strings.ToUpper(word), strings.ToUpper(prefix))
	if bare == "" || len(word) > longest {
		return ""
	}
	farthest := 2
	if len(bare) < 4 {
		farthest = 1
	}
	distance := func(c string) int {
		return levenshtein.Distance(bare, strings.ToUpper(strings.TrimPrefix(c, prefix)), nil)
	}
	begins := func(c string) int { return -commonPrefix(bare, strings.TrimPrefix(c, prefix)) }
	best := slices.MinFunc(slices.Sorted(maps.Keys(candidates)), func(a, b string) int {
		return cmp.Or(cmp.Compare(distance(a), distance(b)), cmp.Compare(begins(a), begins(b)))
	})
	if distance(best) > farthest {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

func commonPrefix(a, b string) (n int) {
	for n < min(len(a), len(b)) && a[n] == b[n] {
		n++
	}
	return n
}
