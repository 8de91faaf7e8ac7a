package main

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// action is what runs of action.yml.
type action struct {
	Inputs  map[string]struct{ Default string }
	Outputs map[string]struct{ Value string }
	Runs    struct {
		Using string
		Steps []step
	}
}

type step struct {
	Name, ID, If, Shell, Run, Uses string
	Env, With                      map[string]string
}

func readAction(t *testing.T) (a action, text string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(root, "action.yml"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Load(raw, &a, yaml.WithKnownFields(false)); err != nil {
		t.Fatal(err)
	}
	return a, string(raw)
}

var (
	expression = regexp.MustCompile(`\$\{\{\s*(.*?)\s*\}\}`)
	pinnedUse  = regexp.MustCompile(`uses: [\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+`)
)

// TestActionIsSafe: what a workflow says reaches no shell as text, every input is used,
// and what others wrote is pinned.
func TestActionIsSafe(t *testing.T) {
	a, text := readAction(t)
	for _, s := range a.Runs.Steps {
		if expression.MatchString(s.Run) {
			t.Errorf("step %s: an expression in run: its value is read as shell", s.Name)
		}
		if s.Uses != "" && !strings.Contains(text, "uses: "+s.Uses+" # v") {
			t.Errorf("%s has no tag beside it", s.Uses)
		}
	}
	if n := strings.Count(text, "uses: "); n != len(pinnedUse.FindAllString(text, -1)) {
		t.Errorf("of %d actions of others, not all are pinned to a commit", n)
	}
	for name := range a.Inputs {
		if !strings.Contains(text, "inputs."+name+" ") {
			t.Errorf("nothing reads the input %s", name)
		}
	}
}

// release makes a release as the action downloads it, of the program as it is built here,
// and returns where it is, and the digest of the tarball.
func release(t *testing.T) (dir, digest string) {
	t.Helper()
	dir = t.TempDir()
	name := "afalg-policy-9.9.9-linux-" + runtime.GOARCH
	must(t, os.MkdirAll(filepath.Join(dir, "v9.9.9", name, "usr/bin"), 0o755))
	build := exec.Command("go", "build", "-o", filepath.Join(dir, "v9.9.9", name, "usr/bin/afalg-policy"), "./cmd/afalg-policy")
	build.Dir = root
	output(t, build)
	output(t, exec.Command("tar", "-C", filepath.Join(dir, "v9.9.9"), "-I", "gzip -1", "-cf", filepath.Join(dir, "v9.9.9", name+".tar.gz"), name))
	tarball, err := os.ReadFile(filepath.Join(dir, "v9.9.9", name+".tar.gz"))
	must(t, err)
	sum := sha256.Sum256(tarball)
	digest = hex.EncodeToString(sum[:])
	sums := strings.Repeat("0", 64) + "  other\n" + digest + "  " + name + ".tar.gz\n"
	must(t, os.WriteFile(filepath.Join(dir, "v9.9.9", "SHA256SUMS"), []byte(sums), 0o644))
	return dir, digest
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func output(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	text, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd.Args, err, text)
	}
	return string(text)
}

// job is one run of the action's own steps.
type job struct {
	workspace string
	text      string // of both streams
	uploaded  string // the file that the upload would take
	failed    string // the step that failed; "" if none did
	status    string
}

// runAction does what a runner does with the steps of a composite action.
func runAction(t *testing.T, workspace string, inputs map[string]string) (j job) {
	t.Helper()
	a, _ := readAction(t)
	where, err := filepath.Abs(root)
	must(t, err)
	j.workspace = workspace
	values := map[string]string{}
	for name, input := range a.Inputs {
		values["inputs."+name] = input.Default
	}
	for name, value := range inputs {
		if _, known := a.Inputs[name]; !known {
			t.Fatalf("the action has no input %s", name)
		}
		values["inputs."+name] = value
	}
	fill := func(s string) string {
		return expression.ReplaceAllStringFunc(s, func(e string) string { return values[expression.FindStringSubmatch(e)[1]] })
	}
	temporary := t.TempDir()
	for _, s := range a.Runs.Steps {
		if s.Uses != "" {
			if values["inputs.upload"] == "true" && values["steps.verify.outputs.sarif"] != "" {
				j.uploaded = fill(s.With["sarif_file"])
			}
			continue
		}
		outputs := filepath.Join(t.TempDir(), "outputs")
		script := filepath.Join(t.TempDir(), "script")
		must(t, os.WriteFile(script, []byte(s.Run), 0o600))
		cmd := exec.Command("bash", "--noprofile", "--norc", "-eo", "pipefail", script)
		cmd.Dir = workspace
		cmd.Env = append(os.Environ(), "GITHUB_ACTION_PATH="+where, "GITHUB_OUTPUT="+outputs, "RUNNER_TEMP="+temporary)
		for name, value := range s.Env {
			cmd.Env = append(cmd.Env, name+"="+fill(value))
		}
		text, err := cmd.CombinedOutput()
		j.text += string(text)
		if err != nil {
			j.failed, j.status = s.Name, fmt.Sprint(cmd.ProcessState.ExitCode())
			return j
		}
		set, _ := os.ReadFile(outputs) // none without an output
		for line := range strings.Lines(string(set)) {
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			values["steps."+s.ID+".outputs."+name] = value
		}
	}
	j.status = fill(a.Outputs["status"].Value)
	return j
}

const (
	pod          = "apiVersion: v1\nkind: Pod\nmetadata: {name: app}\nspec:\n  containers:\n  - name: app\n    securityContext: {%s}\n"
	closedFilter = `{"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]}`
	localhost    = "seccompProfile: {type: Localhost, localhostProfile: afalg-policy/default.json}"
)

// repositoryOf writes a repository to verify.
func repositoryOf(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		must(t, os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755))
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644))
	}
	return dir
}

// TestAction runs the steps of action.yml on repositories.
func TestAction(t *testing.T) {
	releases, digest := release(t)
	closed := map[string]string{"deploy/app.yaml": fmt.Sprintf(pod, localhost), "profiles/afalg-policy/default.json": closedFilter, "package.json": "{}"}
	open := map[string]string{"deploy/app.yaml": fmt.Sprintf(pod, "privileged: true"), "package.json": "{}"}
	with := func(more ...string) map[string]string {
		inputs := map[string]string{"version": "v9.9.9", "releases": "file://" + releases, "sha256": ""}
		for i := 0; i < len(more); i += 2 {
			inputs[more[i]] = more[i+1]
		}
		return inputs
	}
	for _, tt := range []struct {
		name           string
		files, inputs  map[string]string
		failed, status string
		uploads        bool
		says           string
	}{
		{"closed", closed, with("profiles", "profiles"), "", "0", true, "verdict: closed: 1 input, 0 of them open; 1 container, 0 of them open"},
		{"closed, by a digest of the caller", closed, with("profiles", "profiles", "sha256", digest), "", "0", true, "verdict: closed"},
		{"undecided", closed, with(), "Verdict", "1", true, "verdict: undecided"},
		{"open", open, with(), "Verdict", "1", true, "deploy/app.yaml:7:35: open: Pod app, container app: privileged"},
		{"open, not uploaded", open, with("upload", "false"), "Verdict", "1", false, "verdict: open"},
		{"open, which fails nothing", open, with("fail-on", "none"), "", "0", true, "verdict: open"},
		{"left out", open, with("exclude", "*.toml\ndeploy"), "Verdict", "2", true, "no profile and no pod is in the directory"},
		{"nothing to verify", map[string]string{"package.json": "{}"}, with(), "Verdict", "2", true, "no profile and no pod is in the directory"},
		{"two paths", closed, with("paths", "deploy\nprofiles\n", "profiles", "profiles"), "", "0", true, "verdict: closed"},
		{"another digest", closed, with("sha256", strings.Repeat("a", 64)), "Install afalg-policy", "2", false, "is not what its digest says: have " + digest},
		{"no digest", closed, with("sha256", "latest"), "Install afalg-policy", "2", false, "want one of 64 hexadecimal digits, not 'latest'"},
		{"another version", closed, with("version", "9.9.8"), "Install afalg-policy", "2", false, "cannot fetch file://"},
		{"a version that is a path", closed, with("version", "../../9.9.9"), "Install afalg-policy", "2", false, "want three numbers such as 0.1.0"},
		{"a mirror without TLS", closed, with("releases", "http://127.0.0.1:1"), "Install afalg-policy", "2", false, "cannot fetch http://"},
		{"a path that is shell", closed, with("paths", `$(touch pwned)`), "Verdict", "2", true, "$(touch pwned): "},
		{"a path that is a flag", closed, with("paths", "--fail-on=none"), "Verdict", "2", true, "--fail-on=none: "},
		{"an output in a name", closed, with("sarif", "x\nstatus=0"), "Verify", "2", false, "sarif has several lines"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			workspace := repositoryOf(t, tt.files)
			j := runAction(t, workspace, tt.inputs)
			if j.failed != tt.failed || j.status != tt.status || (j.uploaded != "") != tt.uploads || !strings.Contains(j.text, tt.says) {
				t.Errorf("failed %q, status %s, uploads %q; want %q, %s, %t and %q\n%s", j.failed, j.status, j.uploaded, tt.failed, tt.status, tt.uploads, tt.says, j.text)
			}
			if _, err := os.Stat(filepath.Join(workspace, "pwned")); err == nil {
				t.Error("a path was read as shell")
			}
			if j.uploaded == "" {
				return
			}
			text, err := os.ReadFile(filepath.Join(workspace, j.uploaded))
			if err != nil || !json.Valid(text) || !strings.Contains(string(text), `"2.1.0"`) {
				t.Errorf("the report: %v\n%.200s", err, text)
			}
		})
	}
	t.Run("a tarball that was changed", func(t *testing.T) {
		changed := filepath.Join(releases, "v9.9.9", "afalg-policy-9.9.9-linux-"+runtime.GOARCH+".tar.gz")
		f, err := os.OpenFile(changed, os.O_APPEND|os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteString("x")
		must(t, err)
		must(t, f.Close())
		if j := runAction(t, repositoryOf(t, closed), with()); j.failed != "Install afalg-policy" || !strings.Contains(j.text, "is not what its digest says") {
			t.Errorf("failed %q\n%s", j.failed, j.text)
		}
	})
}

// TestHook has pre-commit itself run the hook, in repositories that are closed and open.
func TestHook(t *testing.T) {
	if _, err := exec.LookPath("pre-commit"); err != nil {
		t.Fatal("pre-commit is missing: scripts/install test")
	}
	hooks := repositoryOf(t, nil)
	text, err := os.ReadFile(filepath.Join(root, ".pre-commit-hooks.yaml"))
	must(t, err)
	must(t, os.WriteFile(filepath.Join(hooks, ".pre-commit-hooks.yaml"), text, 0o644))
	rev := commit(t, hooks)
	programs := t.TempDir()
	build := exec.Command("go", "build", "-o", filepath.Join(programs, "afalg-policy"), "./cmd/afalg-policy")
	build.Dir = root
	output(t, build)
	for _, tt := range []struct {
		name, container, says string
		closed                bool
	}{
		{"closed", localhost, "AF_ALG is closed in profiles and manifests", true},
		{"open", "privileged: true", "deploy.yaml:7:35: open: Pod app, container app: privileged", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			config := fmt.Sprintf("repos:\n- repo: %s\n  rev: %s\n  hooks:\n  - id: afalg-policy-verify\n    args: [--profiles, profiles, .]\n", hooks, rev)
			dir := repositoryOf(t, map[string]string{"deploy.yaml": fmt.Sprintf(pod, tt.container), "profiles/afalg-policy/default.json": closedFilter, ".pre-commit-config.yaml": config})
			commit(t, dir)
			cmd := exec.Command("pre-commit", "run", "--all-files")
			cmd.Dir = dir
			cmd.Env = append(os.Environ(), "PATH="+programs+":"+os.Getenv("PATH"), "PRE_COMMIT_HOME="+t.TempDir())
			text, err := cmd.CombinedOutput()
			if (err == nil) != tt.closed || !strings.Contains(string(text), tt.says) {
				t.Errorf("%v\n%s", err, text)
			}
		})
	}
}

// commit makes a directory a repository of git, and returns its commit.
func commit(t *testing.T, dir string) string {
	t.Helper()
	script := `git init -q . && git add -A && git -c user.name=x -c user.email=x@example.com -c commit.gpgsign=false commit -qm x && git rev-parse HEAD`
	cmd := exec.Command("bash", "-c", script)
	cmd.Dir = dir
	return strings.TrimSpace(output(t, cmd))
}
