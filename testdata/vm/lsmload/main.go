// Lsmload puts a policy in force in the kernel where afalg-policy itself, which
// needs libseccomp, cannot be built.
//
//	lsmload POLICY
//	lsmload status
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
	"github.com/afalg-policy/afalg-policy/internal/plan"
)

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(what string) error {
	if what == "status" {
		s, err := lsm.ReadStatus()
		if err != nil {
			return err
		}
		return json.NewEncoder(os.Stdout).Encode(s)
	}
	p, _, err := plan.Load(what, plan.ReadNamed)
	if err != nil {
		return err
	}
	s, _, err := lsm.Load(context.Background(), p, lsm.Options{Policy: what, Tool: "lsmload"})
	if err != nil {
		return err
	}
	fmt.Println(s.Attachment)
	return nil
}
