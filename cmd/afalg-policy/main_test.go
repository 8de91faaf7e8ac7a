package main

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/afalg-policy/afalg-policy/internal/testing/hosttest"
)

var update = flag.Bool("update", false, "rewrite what the scripts in testdata/script compare")

func TestMain(m *testing.M) {
	// Where the tests run in the background, by nohup or from a script, signals
	// are ignored that the commands under test are to get. Caught ones are not,
	// in what is executed.
	isTest := strings.HasSuffix(os.Args[0], ".test")
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if isTest && signal.Ignored(s) {
			signal.Notify(make(chan os.Signal, 1), s)
		}
	}
	testscript.Main(m, map[string]func(){"afalg-policy": main})
}

// TestScripts runs the real command line. After a change that is meant, run
// it with -update and read the difference.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "../../testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                map[string]func(*testscript.TestScript, bool, []string){"status": status},
	})
}

// status runs a command and compares its exit status: "status 2 afalg-policy
// check". Its output can be asked for as after exec.
func status(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N command [args...]")
	}
	want := args[0]
	got := "0"
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		got = statusOf(err)
	}
	if got != want {
		ts.Fatalf("%v: status %s, want %s", args[1:], got, want)
	}
}

func statusOf(err error) string {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return strconv.Itoa(exit.ExitCode())
	}
	return err.Error()
}

var (
	must = hosttest.Must
	tree = hosttest.Tree
)
