package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	invopop "github.com/invopop/jsonschema"
	jsonschema "github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/afalg-policy/afalg-policy/internal/deploy"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/policies"
)

//go:generate go test . -run ^TestReportSchemaIsCurrent$ -update

const reportSchemaFile = repository + "/policies/reports.v1.schema.json"

// reports are the types behind each command that reports.
var reports = []struct {
	name string
	form any
}{
	{"apply", deploy.Applied{}},
	{"check", report.Check{}},
	{"doctor", report.Doctor{}},
	{"doctor --merge", report.Fleet{}},
	{"explain", report.Explanation{}},
	{"explain class", report.ClassExplanation{}},
	{"explain grants", report.Held{}},
	{"explain lsm", report.KernelGaps{}},
	{"generate", report.Gaps{}},
	{"install", deploy.Result{}},
	{"list", report.List{}},
	{"lsm learn", report.Uses{}},
	{"lsm load", report.KernelHalf{}},
	{"lsm refresh", report.KernelHalf{}},
	{"lsm status", report.KernelHalf{}},
	{"probe", report.Probe{}},
	{"status", report.Status{}},
	{"uninstall", deploy.Result{}},
	{"verify", report.Filters{}},
	{"verify --all", report.Host{}},
	{"verify --equal", report.Comparison{}},
	{"version", report.About{}},
}

// reportSchema is the schema of all reports. Consumers meet keys of later
// programs, which it allows; the strict one is for the tests.
func reportSchema(t *testing.T, strict bool) []byte {
	t.Helper()
	r := &invopop.Reflector{
		Anonymous: true, DoNotReference: true, AllowAdditionalProperties: !strict,
		Mapper: func(typ reflect.Type) *invopop.Schema {
			if typ == reflect.TypeFor[*plan.Plan]() || typ == reflect.TypeFor[plan.Plan]() {
				return &invopop.Schema{Type: "object", Description: "The resolved plan, with the keys of the policy file."}
			}
			return nil
		},
	}
	all := &invopop.Schema{
		Version: invopop.Version, Title: "Reports of afalg-policy, version 1",
		Description: "What --json prints. Generated: run go generate ./cmd/afalg-policy.",
	}
	for _, one := range reports {
		s := r.Reflect(one.form)
		s.Version, s.Title = "", "afalg-policy "+one.name
		for key, value := range map[string]any{"report": one.name, "version": report.Version} {
			p, ok := s.Properties.Get(key)
			if !ok {
				t.Fatalf("%s has no %s", one.name, key)
			}
			p.Const = value
		}
		all.OneOf = append(all.OneOf, s)
	}
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(text, '\n')
}

func TestReportSchemaIsCurrent(t *testing.T) {
	want := reportSchema(t, false)
	if *update {
		if err := os.WriteFile(reportSchemaFile, want, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(want), string(policies.ReportSchema())); diff != "" {
		t.Errorf("%s is stale, run go generate ./cmd/afalg-policy (-want +got):\n%s", reportSchemaFile, diff)
	}
}

func compileSchema(t *testing.T, text []byte) *jsonschema.Schema {
	t.Helper()
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	c := jsonschema.NewCompiler()
	if err := c.AddResource("reports.json", value); err != nil {
		t.Fatal(err)
	}
	schema, err := c.Compile("reports.json")
	if err != nil {
		t.Fatal(err)
	}
	return schema
}

// TestReportsFollowTheSchema runs each command, whatever it answers.
func TestReportsFollowTheSchema(t *testing.T) {
	strict, shipped := compileSchema(t, reportSchema(t, true)), compileSchema(t, policies.ReportSchema())
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken.json")
	bad := filepath.Join(dir, "bad.yaml")
	for path, text := range map[string]string{broken: "{", bad: "version: 1\nnam: x\n"} {
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	good, out := filepath.Join(dir, "good.yaml"), filepath.Join(dir, "out.json")
	writeText(t, good, policyOne)
	root := filepath.Join(dir, "root")
	for _, program := range []string{"usr/bin/podman", "usr/bin/crun", "usr/local/bin/afalg-policy"} {
		path := filepath.Join(root, program)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, nil, 0o755))
	}
	install := []string{"install", "podman", "--root", root, "--policy", "builtin:fips", "--program", "/usr/local/bin/afalg-policy"}
	uninstall := []string{"uninstall", "podman", "--root", root}
	profiles := repository + "/testdata/profiles/"
	seen := map[string]bool{}
	for _, line := range [][]string{
		{"apply", good, "--policy", filepath.Join(dir, "none.yaml"), "--dry-run"},
		{"apply", bad, "--policy", filepath.Join(dir, "none.yaml")},
		{"check", "builtin:fips"},
		{"check", bad},
		{"explain", "builtin:fips", "--binary", "/bin/sh", "--algorithm", "hash:sha1"},
		{"explain", "builtin:linux-7.3", "--algorithm", "hash:sha1"},
		{"explain", "builtin:fips", "--name", "web"},
		{"explain", "builtin:fips", "--lsm"},
		{"explain", "builtin:baseline", "--socket", "AF_INET:SOCK_STREAM"},
		{"explain", "builtin:baseline", "--socket", "AF_ALG:SOCK_SEQPACKET"},
		{"generate", "seccomp", "builtin:fips", "-o", out},
		{"generate", "seccomp", "builtin:fips", "--grant", "hmaccalc", "-o", out},
		slices.Concat(install, []string{"--dry-run"}),
		install,
		slices.Concat(uninstall, []string{"--dry-run"}),
		uninstall,
		uninstall, // there is nothing any more
		{"list"},
		{"probe"},
		{"status", "--no-probe"},
		{"verify", profiles + "compares-64-bits.json", profiles + "or-not-and.json", texts + "empty.json", broken, "--ask", "read"},
		{"verify", "--pid", "self"},
		{"verify", "--all"},
		{"verify", "--equal", profiles + "closed.json", profiles + "compares-64-bits.json"},
		{"version"},
	} {
		if line[len(line)-1] == "self" {
			sleep := exec.Command("sleep", "1000")
			if err := sleep.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { sleep.Process.Kill(); sleep.Wait() }()
			line[len(line)-1] = strconv.Itoa(sleep.Process.Pid)
		}
		// probe runs itself, so that it has to be the program.
		out, err := exec.Command("afalg-policy", slices.Concat(line, []string{"--json"})...).Output()
		value, badJSON := jsonschema.UnmarshalJSON(bytes.NewReader(out))
		if badJSON != nil {
			t.Fatalf("%v: %v, %v", line, err, badJSON)
		}
		for _, schema := range []*jsonschema.Schema{strict, shipped} {
			if err := schema.Validate(value); err != nil {
				t.Errorf("%v: %v", line, err)
			}
		}
		seen[value.(map[string]any)["report"].(string)] = true
		value.(map[string]any)["more"] = true
		if strict.Validate(value) == nil || shipped.Validate(value) != nil {
			t.Errorf("%v: another key is not what it is to be", line)
		}
		value.(map[string]any)["version"] = 2
		if shipped.Validate(value) == nil {
			t.Errorf("%v: a report of version 2 is taken for one of version 1", line)
		}
	}
	for _, value := range append(kernelHalfReports(t), doctorReports(t)...) {
		for _, schema := range []*jsonschema.Schema{strict, shipped} {
			if err := schema.Validate(value); err != nil {
				t.Errorf("%v: %v", value["report"], err)
			}
		}
		seen[value["report"].(string)] = true
		value["more"] = true
		if strict.Validate(value) == nil {
			t.Errorf("%v: another key is not what it is to be", value["report"])
		}
	}
	for _, one := range reports {
		if !seen[one.name] {
			t.Errorf("no report of %s was seen", one.name)
		}
	}
}
