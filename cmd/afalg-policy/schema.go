package main

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/policies"
)

func newSchema(t *tui) *cobra.Command {
	schemas := map[string]func() []byte{"policy": policies.Schema, "reports": policies.ReportSchema}
	return &cobra.Command{
		Use:   "schema [policy|reports]",
		Short: "Print the JSON Schema of the policy file, or of the reports",
		Long: `Schema prints the JSON Schema of the policy file. Editors with a YAML language
server check and complete a policy whose first line is

  # yaml-language-server: $schema=policy.schema.json

"schema reports" prints that of what commands print with --json. Each report
says which it is ("report"), in which version of the form ("version"), and its
answer in one word ("verdict"). Further keys may come; when one goes or changes
its meaning, the version grows.`,
		Example: `  afalg-policy schema > policy.schema.json
  afalg-policy schema reports > reports.v1.schema.json`,
		ValidArgs: []string{"policy", "reports"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 || len(args) == 1 && schemas[args[0]] == nil {
				return usagef("print the schema of policy or of reports, not of %q", strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(_ *cobra.Command, args []string) error {
			schema := policies.Schema
			if len(args) == 1 {
				schema = schemas[args[0]]
			}
			_, err := t.out.Write(schema())
			return err
		},
	}
}
