package main

import (
	"path/filepath"
	"strconv"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/spf13/cobra"
)

// subject is the request as flags spell it.
type asked struct {
	binary, sha256, user, unit, algorithm string
	capabilities                          []string
	container                             bool
}

func newExplain(t *tui) *cobra.Command {
	var s asked
	cmd := &cobra.Command{
		Use:   "explain POLICY --algorithm TYPE:NAME",
		Short: "Tell whether a request is allowed, and why",
		Long: `Explain decides one request as the policy means it: who asks, by the flags given,
for which algorithm. What no flag says is unknown and satisfies no condition.

It names the rule that allows the request, with its place in the file. For a
denial it names the rule that came nearest, and what did not hold.

It asks nothing of this host: --user is root, a uid or a name, and a name is
not looked up. Exit status 0 means allowed, 1 denied.`,
		Example: `  afalg-policy explain builtin:fips --binary /usr/bin/kcapi-hasher --user root --algorithm 'hash:hmac(sha512)'
  afalg-policy explain builtin:linux-7.3 --capability CAP_NET_ADMIN --algorithm 'skcipher:cbc(aes)' --json`,
		Args:              onePolicy,
		ValidArgsFunction: completePolicy,
	}
	f := cmd.Flags()
	f.StringVar(&s.algorithm, "algorithm", "", "what is asked for, as `TYPE:NAME`: hash:hmac(sha512)")
	f.StringVar(&s.binary, "binary", "", "absolute `PATH` of the executable, not of a link to it")
	f.StringVar(&s.sha256, "sha256", "", "digest of the executable, in `HEX`")
	f.BoolVar(&s.container, "container", false, "the binary's path is one inside a container: only a rule with its digest holds")
	f.StringVar(&s.user, "user", "", "`USER` who asks: root, a uid, or a name")
	f.StringArrayVar(&s.capabilities, "capability", nil, "`CAP_…` held in the initial user namespace; may be repeated")
	f.StringVar(&s.unit, "unit", "", "systemd `UNIT` that the process belongs to")
	wantJSON := addFormat(cmd)
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		r, err := s.request()
		if err != nil {
			return err
		}
		p, err := loadPlan(t, args[0])
		if err != nil {
			return err
		}
		return showExplanation(t, plan.Explain(p, r), wantJSON())
	}
	return cmd
}

func (s asked) request() (plan.Request, error) {
	if s.algorithm == "" {
		return plan.Request{}, usagef("--algorithm is missing: TYPE:NAME, as in hash:hmac(sha512)")
	}
	algorithm, err := afalg.ParseAlgorithm(s.algorithm)
	if err != nil {
		return plan.Request{}, usagef("--algorithm %s: %w", s.algorithm, err)
	}
	if s.binary != "" && !filepath.IsAbs(s.binary) {
		return plan.Request{}, usagef("--binary %s: not an absolute path", s.binary)
	}
	r := plan.Request{
		Binary:       s.binary,
		SHA256:       strings.ToLower(s.sha256),
		Claimed:      s.container,
		Capabilities: s.capabilities,
		Unit:         s.unit,
		Algorithm:    algorithm,
	}
	r.UID, r.User = parseUser(s.user)
	return r, nil
}

// parseUser splits the flag as rules do: root is uid 0, a number is a uid.
func parseUser(user string) (uid *uint32, name string) {
	if user == "root" {
		return new(uint32), user
	}
	if n, err := strconv.ParseUint(user, 10, 32); err == nil {
		id := uint32(n)
		return &id, ""
	}
	return nil, user
}

type explanationJSON struct {
	Decision  string      `json:"decision"` // "allowed" or "denied"
	Algorithm string      `json:"algorithm"`
	Rule      *ruleJSON   `json:"rule,omitempty"`
	Nearest   *ruleJSON   `json:"nearest,omitempty"`
	Misses    []plan.Miss `json:"misses,omitempty"` // of the nearest rule
}

type ruleJSON struct {
	Name     string `json:"name"`
	Position string `json:"position"`
}

func showExplanation(t *tui, e plan.Explanation, asJSON bool) error {
	word := "denied"
	if e.Allowed {
		word = "allowed"
	}
	if asJSON {
		err := t.json(explanationJSON{word, e.Request.Algorithm.String(), ruleOf(e.Rule), ruleOf(e.Nearest), e.Misses})
		if err != nil {
			return err
		}
	} else {
		rest := strings.TrimPrefix(printable(e.String()), word)
		t.out.WriteString(t.verdict(e.Allowed, word) + rest + "\n")
	}
	if !e.Allowed {
		if meant, ok := policy.Suggest(e.Request.Algorithm.Type, e.Request.Algorithm.Name); ok {
			t.notef("%s is no well known algorithm: did you mean %s?", e.Request.Algorithm, meant)
		}
		return errNo
	}
	return nil
}

func ruleOf(r *policy.Rule) *ruleJSON {
	if r == nil {
		return nil
	}
	return &ruleJSON{r.Name, r.Pos.String()}
}
