package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// texts are profiles as people have them, with what every reader is to say.
const texts = repository + "/testdata/texts/"

// TestOneReader: verify of a file, verify of a config.json with it, generate
// seccomp and generate oci read a text alike.
func TestOneReader(t *testing.T) {
	tests := []struct {
		file     string
		verify   int    // exit status of both commands that verify
		generate int    // exit status of both commands that generate
		says     string // by verify FILE; by all of them if no one takes the text
		noConfig bool   // the text cannot stand in a config.json
	}{
		{file: "deny-beside-allow.json", verify: exitNo, says: "400:14: warning: the rule for socket is skipped"},
		{file: "object.yaml", verify: exitUsage, generate: exitNo, says: `object.yaml:15:15: unknown operator "SCMP_CMP_NEQ"; did you mean "SCMP_CMP_NE"?`, noConfig: true},
		{file: "object.yaml", verify: exitUsage, generate: exitNo, says: `object.yaml:18:15: unknown operator`, noConfig: true},
		{file: "object.json", verify: exitNo, says: "30:16: error: argument 0 is compared twice", noConfig: true},
		{file: "object.json", verify: exitNo, says: "x86-64\tsocket\topen\tALLOW: arch=0xc000003e nr=41 args[0]=38", noConfig: true},
		{file: "empty.json", verify: exitNo, says: "1:1: error: the profile filters nothing"},
		{file: "null.json", verify: exitNo, says: "1:1: error: the profile filters nothing", noConfig: true},
		{file: "manifest.yaml", verify: exitNo, says: "x86-64\tsocket\topen\tALLOW: arch=0xc000003e nr=41 args[0]=38", noConfig: true},
		{file: "utf-16.json", verify: exitUsage, generate: exitNo, says: "1:1: the text begins with the mark of UTF-16, which container runtimes refuse: save it as UTF-8", noConfig: true},
		{file: "both-byte-orders.json", verify: exitUsage, generate: exitNo, says: "10:3: no runtime on amd64 loads a filter with SCMP_ARCH_S390X, which has the other byte order: list each machine in archMap"},
		{file: "remarks.json", verify: exitNo, says: `2:2: note: the runtimes know no key "_comment" here`},
		{file: "empty-names.json", says: "10:16: note: the rule names no system call"},
		{file: "empty-names-conditional.json", verify: exitNo, says: "737:16: note: the rule names no system call", noConfig: true},
		{file: "denies-two-families.json", verify: exitNo, says: "socket (upper bits)\topen"},
		{file: "denies-vsock.json", verify: exitNo, says: "x86-64\tsocket\topen"},
		{file: "kills.json", verify: exitNo, says: "x86-64\tsocket\topen"},
		{file: "denies-socketpair.json", verify: exitNo, says: "socket (upper bits)\topen"},
		{file: "lxc.txt", verify: exitUsage, generate: exitNo, says: "1:1: this is a seccomp policy of LXC", noConfig: true},
		{file: "mark.json", verify: exitUsage, generate: exitNo, says: "1:1: the text begins with a byte order mark, which container runtimes refuse", noConfig: true},
		{file: "family-name.json", verify: exitUsage, generate: exitNo, says: "1:120: write 38, the number of AF_ALG", noConfig: true},
	}
	for _, test := range tests {
		t.Run(test.file, func(t *testing.T) {
			path := texts + test.file
			ask(t, test.verify, test.says, "verify", path)
			says := ""
			if test.generate != exitYes {
				says = strings.ReplaceAll(test.says, test.file, "base "+path)
				says = says[strings.Index(says, ":")+1:]
			}
			hardened := filepath.Join(t.TempDir(), "out.json")
			ask(t, test.generate, says, "generate", "seccomp", "builtin:baseline", "--base", path, "-o", hardened)
			if test.generate == exitYes {
				ask(t, exitYes, "verdict: closed: 1 input", "verify", hardened)
			}
			if test.noConfig {
				return
			}
			config := configWith(t, path)
			again := "" // in one line, after the place
			if test.generate != exitYes {
				again = says[strings.Index(says, "no runtime"):strings.Index(says, ": list")]
			}
			ask(t, test.verify, again, "verify", config)
			ask(t, test.generate, again, "generate", "oci", "builtin:baseline", "--config", config, "-o", filepath.Join(t.TempDir(), "config.json"))
		})
	}
}

// TestUnfilteredBase: that nothing was filtered is told.
func TestUnfilteredBase(t *testing.T) {
	ask(t, exitYes, "gap: stricter: unfiltered-base: ", "generate", "seccomp", "builtin:baseline", "--base", texts+"empty.json")
}

// ask runs a command and checks its exit status, and what it says.
func ask(t *testing.T, status int, says string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	if got := run(args, strings.NewReader(""), &out, &out); got != status {
		t.Errorf("%v: exit status %d, want %d:\n%s", args, got, status, out.String())
	}
	if !strings.Contains(out.String(), says) {
		t.Errorf("%v says not %q:\n%s", args, says, out.String())
	}
}

// configWith writes a config.json that has the text as linux.seccomp.
func configWith(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "config.json")
	whole := `{"ociVersion":"1.2.0","process":{},"linux":{"seccomp":` + string(text) + `}}`
	if err := os.WriteFile(config, []byte(whole), 0o644); err != nil {
		t.Fatal(err)
	}
	return config
}

// TestListOfProfiles: verify asks each profile of a list, generate wants one.
func TestListOfProfiles(t *testing.T) {
	ask(t, exitNo, "list.json (team-b/open)", "verify", texts+"list.json")
	ask(t, exitNo, "list.json (team-a/closed)", "verify", texts+"list.json")
	ask(t, exitNo, "the text holds 2 profiles, team-a/closed, team-b/open: give one of them",
		"generate", "seccomp", "builtin:baseline", "--base", texts+"list.json")
	// For SARIF and ignore files it is the file that counts.
	ask(t, exitNo, `"uri": "../../testdata/texts/list.json"`, "verify", "-o", "sarif", texts+"list.json")
	accepted := filepath.Join(t.TempDir(), "accepted.yaml")
	const entry = "version: 1\nignore: [{rule: open, files: [list.json], reason: known, expires: 2999-12-31}]\n"
	if err := os.WriteFile(accepted, []byte(entry), 0o644); err != nil {
		t.Fatal(err)
	}
	ask(t, exitYes, "(ignored: known)", "verify", "--ignore-file", accepted, texts+"list.json")
}
