package install

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
)

var update = flag.Bool("update", false, "rewrite what the files in testdata expect")

// TestPlatforms installs on the roots in testdata, compares the written files,
// and uninstalls. The first lines of a file are settings:
//
//	platform docker
//	programs usr/sbin/dockerd usr/sbin/runc
//	policy builtin:fips
//
// Files below before/ exist; those below after/ are new or changed, with their
// modes unless 0644. The notes follow, or the error.
func TestPlatforms(t *testing.T) {
	paths, err := filepath.Glob("testdata/*/*.txtar")
	must(t, err)
	if len(paths) < 20 {
		t.Errorf("only %d cases were found", len(paths))
	}
	for _, p := range paths {
		t.Run(strings.TrimPrefix(strings.TrimSuffix(p, ".txtar"), "testdata/"), func(t *testing.T) { testPlatform(t, p) })
	}
}

func testPlatform(t *testing.T, p string) {
	archive, err := txtar.ParseFile(p)
	must(t, err)
	dir, name, o := rootFor(t, archive)
	before := snapshot(t, dir)
	r, err := Install(name, o)
	got := &txtar.Archive{Comment: archive.Comment, Files: given(archive)}
	if err != nil {
		got.Files = append(got.Files, txtar.File{Name: "error", Data: []byte(kindOf(err) + strings.ReplaceAll(err.Error(), dir, "ROOT") + "\n")})
		equal(t, "after an error", before, snapshot(t, dir))
	} else {
		got.Files = append(got.Files, written(t, before, snapshot(t, dir))...)
		if len(r.Notes) > 0 {
			got.Files = append(got.Files, txtar.File{Name: "notes", Data: []byte(strings.ReplaceAll(strings.Join(r.Notes, "\n"), dir, "ROOT") + "\n")})
		}
		again(t, name, o)
		_, err := Uninstall(name, dir, false)
		must(t, err)
		equal(t, "uninstalled", before, snapshot(t, dir))
	}
	text := txtar.Format(got)
	if *update {
		must(t, os.WriteFile(p, text, 0o644))
		return
	}
	if want := txtar.Format(archive); !bytes.Equal(want, text) {
		equal(t, "written", map[string]string{p: string(want)}, map[string]string{p: string(text)})
	}
}

// again repeats an installation, in earnest and as a dry run.
func again(t *testing.T, name string, o Options) {
	t.Helper()
	before := snapshot(t, o.Root)
	for _, o.DryRun = range []bool{true, false} {
		r, err := Install(name, o)
		must(t, err)
		if len(r.Changes) > 0 {
			t.Errorf("the same again changes %v", r.Changes)
		}
		equal(t, "the same again", before, snapshot(t, o.Root))
	}
}

// kindOf returns the name of the exit status that an error leads to.
func kindOf(err error) string {
	var unable *hosterr.Error
	var option *OptionError
	switch {
	case errors.As(err, &option):
		return "2: "
	case errors.As(err, &unable):
		return "3: "
	}
	return "1: "
}

func given(a *txtar.Archive) []txtar.File {
	var files []txtar.File
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "before/") {
			files = append(files, f)
		}
	}
	return files
}

// rootFor makes the root of a case.
func rootFor(t *testing.T, a *txtar.Archive) (dir, platform string, o Options) {
	t.Helper()
	dir = t.TempDir()
	must(t, os.Chmod(dir, 0o755))
	must(t, os.MkdirAll(dir+"/var/lib", 0o755))
	o = Options{
		Root: dir, Policy: "builtin:fips", Program: "/usr/local/bin/afalg-policy", Agent: "/run/afalg-policy/agent.sock",
		OnAgentDown: "refuse", DecisionLog: "/var/log/afalg-policy/containers.json", Version: "test", Harden: pretend,
		Show: []byte("Id=a.service\nRestrictAddressFamilies=~\n"), DropIns: pretendDropIns, Settings: pretendSettings, Profiles: pretendProfiles, Before: func(stops []string) { t.Errorf("stops in an image: %s", stops) },
	}
	write(t, dir, "usr/local/bin/afalg-policy", "", 0o755)
	for _, f := range given(a) {
		write(t, dir, strings.TrimPrefix(f.Name, "before/"), string(f.Data), 0o644)
	}
	for line := range strings.Lines(string(a.Comment)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		switch key {
		case "", "#":
		case "platform":
			platform = value
		case "programs":
			for _, p := range programsOf(value) {
				write(t, dir, p, "", 0o755)
			}
		case "directory":
			must(t, os.MkdirAll(filepath.Join(dir, value), 0o755))
		case "link":
			from, to, _ := strings.Cut(value, " ")
			must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, from)), 0o755))
			must(t, os.Symlink(to, filepath.Join(dir, from)))
		case "chmod":
			mode, p, _ := strings.Cut(value, " ")
			bits, err := strconv.ParseUint(mode, 8, 32)
			must(t, err)
			must(t, os.Chmod(filepath.Join(dir, p), os.FileMode(bits)))
		case "chown":
			id, p, _ := strings.Cut(value, " ")
			uid, err := strconv.Atoi(id)
			must(t, err)
			must(t, os.Lchown(filepath.Join(dir, p), uid, uid))
		case "policy":
			o.Policy = value
		case "program":
			o.Program = value
		case "agent":
			o.Agent = value
		case "on-agent-down":
			o.OnAgentDown = value
		case "decision-log":
			o.DecisionLog = value
		case "runtime-path":
			o.RuntimePath = value
		case "base":
			o.BasePath, o.Base = value, []byte("the profile of --base")
		case "gives":
			o.Needs = Needs{strings.Contains(value, "rules"), strings.Contains(value, "sockets")}
		case "unconfined":
			o.Unconfined = Unconfined{Refused: value != "harden", Said: value != "silent"}
		case "socketcall":
			o.Socketcall = value
		case "audit":
			o.Audit = true
		case "accept":
			o.Accept = append(o.Accept, value)
		case "watch":
			o.Watched = append(o.Watched, value)
		case "nri":
			o.NRI = true
		case "kubelet-root":
			o.KubeletRoot = value
		case "profile":
			o.Profiles = func() (map[string][]byte, error) { return map[string][]byte{value: []byte("a profile\n")}, nil }
		case "precreate":
			o.Precreate = true
		default:
			t.Fatalf("setting %q", line)
		}
	}
	return dir, platform, o
}

// pretend stands for the making of profiles, which has tests of its own.
func pretend(base []byte) ([]byte, error) {
	if base == nil || strings.Contains(string(base), `"archMap"`) {
		base = []byte("Docker's default\n")
	}
	if strings.HasPrefix(string(base), "broken") {
		return nil, errors.New("1:1: it is broken")
	}
	return append([]byte("hardened "), base...), nil
}

// pretendProfiles stands for package gen.
func pretendProfiles() (map[string][]byte, error) {
	return map[string][]byte{"afalg-policy/default.json": []byte("{}\n"), "afalg-policy/granted/one.json": []byte("{\"one\": 1}\n")}, nil
}

// pretendDropIns stands for package gen.
func pretendDropIns([]string) (map[string][]byte, error) {
	return map[string][]byte{
		"service.d/zz-afalg-policy.conf":                    []byte("# closed\n\n[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_INET\n"),
		"iwd.service.d/zz-afalg-policy.conf":                []byte("# granted\n\n[Service]\nRestrictAddressFamilies=\nRestrictAddressFamilies=AF_UNIX AF_ALG\n"),
		"afalg-policy-agent.service.d/zz-afalg-policy.conf": []byte("# left alone\n"),
	}, nil
}

// written lists the files that are new or changed, without the record.
func written(t *testing.T, before, after map[string]string) []txtar.File {
	t.Helper()
	var files []txtar.File
	for name, text := range after {
		if before[name] == text || strings.HasPrefix(text, "d") || strings.HasPrefix(name, "var/lib/afalg-policy/installed") {
			continue
		}
		head, body, _ := strings.Cut(text, "\n")
		mode, rest, _ := strings.Cut(head, " ")
		switch mode {
		case "-rw-r--r--":
		case "-rwxr-xr-x":
			name += " 0755"
		case "Lrwxrwxrwx":
			name += " link"
			_, body, _ = strings.Cut(rest, " ")
			body += "\n"
		default:
			t.Errorf("%s has mode %s", name, mode)
		}
		files = append(files, txtar.File{Name: "after/" + name, Data: []byte(body)})
	}
	slices.SortFunc(files, func(a, b txtar.File) int { return strings.Compare(a.Name, b.Name) })
	return files
}

// programsOf splits a list at its spaces. A list that begins with usr/local/bin
// is one program, whose name may contain them.
func programsOf(value string) []string {
	if strings.HasPrefix(value, "usr/local/bin/") {
		return []string{value}
	}
	return strings.Fields(value)
}

func errorText(err error) string {
	if err == nil {
		return "no error"
	}
	return err.Error()
}
