// Command shell opens a shell in a machine for tests: a box, or an emulated one
// with another kernel. Nothing done there outlives the machine.
//
//	go run ./internal/testing/shell box
//	go run ./internal/testing/shell vm 6.12
package main

import (
	"fmt"
	"os"

	"github.com/afalg-policy/afalg-policy/internal/testing/box"
	"github.com/afalg-policy/afalg-policy/internal/vmtest"
)

func main() {
	var err error
	switch args := os.Args[1:]; {
	case len(args) == 1 && args[0] == "box":
		err = box.Shell()
	case len(args) == 2 && args[0] == "vm":
		err = vmtest.Shell(args[1], vmtest.Options{})
	default:
		fmt.Fprintln(os.Stderr, "usage: shell box | shell vm KERNEL")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "shell:", err)
		os.Exit(1)
	}
}
