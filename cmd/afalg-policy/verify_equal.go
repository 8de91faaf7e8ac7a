package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/filter/verify"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
)

// equality is the question of --equal.
type equality struct {
	wanted bool
	except []string
}

func equalFlags(cmd *cobra.Command) *equality {
	e := &equality{}
	cmd.Flags().BoolVar(&e.wanted, "equal", false, "ask whether two filters do the same, and nothing else")
	cmd.Flags().StringArrayVar(&e.except, "except", nil, "with --equal: leave out the routes to a socket `FAMILY`, or the calls of a query; may be repeated")
	cmd.MarkFlagsMutuallyExclusive("equal", "ask")
	cmd.MarkFlagsMutuallyExclusive("equal", "policy")
	cmd.MarkFlagsMutuallyExclusive("equal", "sarif")
	return e
}

func (e *equality) show(t *tui, in source.Input, format *reportFormat) error {
	except, err := e.exceptions()
	if err != nil {
		return err
	}
	if format.value() == "sarif" {
		return usagef("--equal has no SARIF form: use text or json")
	}
	if len(in.Names) != 2 {
		return usagef("--equal compares two inputs, not %d", len(in.Names))
	}
	r, err := report.Compare(in.Of(0), in.Of(1), except)
	if err != nil {
		return verifyError("--except", err)
	}
	return t.answer(r, format.value() == "json", r.Verdict == report.Equal)
}

func (e *equality) exceptions() (x report.Exceptions, err error) {
	x.Texts = e.except
	for _, text := range e.except {
		if n, ok := afalg.FamilyByName(text); ok {
			x.Families = append(x.Families, n)
			continue
		}
		if strings.HasPrefix(text, "AF_") {
			return x, usagef("--except %s: no such socket family", text)
		}
		q, err := verify.ParseQuery(text)
		if err != nil {
			return x, usagef("--except: %w", err)
		}
		x.Queries = append(x.Queries, q)
	}
	return x, nil
}
