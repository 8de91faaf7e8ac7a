package main

import (
	"github.com/afalg-policy/afalg-policy/policies"
	"github.com/spf13/cobra"
)

func newSchema(t *tui) *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the policy file",
		Long: `Schema prints the JSON Schema of the policy file. Editors with a YAML language
server check and complete a policy whose first line is

  # yaml-language-server: $schema=policy.schema.json`,
		Example: `  afalg-policy schema > policy.schema.json`,
		Args:    cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := t.out.Write(policies.Schema())
			return err
		},
	}
}
