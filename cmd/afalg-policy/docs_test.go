package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

//go:generate go test . -run ^(TestDocumentedOutput|TestLayersAreDocumented)$ -update

const repository = "../.."

// manual renders the pages and completions of the command tree, by path.
func manual(t *testing.T) map[string]string {
	t.Helper()
	root := newRoot(newTUI(&bytes.Buffer{}, &bytes.Buffer{}))
	pages, err := manPages(root)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for _, p := range pages {
		files["man/"+p.Path] = string(p.Data)
	}
	for shell, write := range map[string]func(*bytes.Buffer) error{
		"bash": func(b *bytes.Buffer) error { return root.GenBashCompletionV2(b, true) },
		"zsh":  func(b *bytes.Buffer) error { return root.GenZshCompletion(b) },
		"fish": func(b *bytes.Buffer) error { return root.GenFishCompletion(b, true) },
	} {
		var script bytes.Buffer
		if err := write(&script); err != nil {
			t.Fatal(err)
		}
		files["completions/"+shell] = script.String()
	}
	return files
}

// TestManual looks at the manual, and with -update writes it into out (make man).
func TestManual(t *testing.T) {
	files := manual(t)
	walk(newRoot(newTUI(&bytes.Buffer{}, &bytes.Buffer{})), func(cmd *cobra.Command) {
		page := "man/" + strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
		for _, part := range []string{".SH NAME", ".SH SYNOPSIS", cmd.Short} {
			if cmd.IsAvailableCommand() && cmd.Name() != "help" && !strings.Contains(files[page], part) {
				t.Errorf("%s: there is no %q", page, part)
			}
		}
	})
	bash := exec.Command("bash", "-n")
	bash.Stdin = strings.NewReader(files["completions/bash"])
	if out, err := bash.CombinedOutput(); err != nil {
		t.Errorf("bash: %v\n%s", err, out)
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if !strings.Contains(files["completions/"+shell], " __complete ") {
			t.Errorf("the completion for %s does not ask the program", shell)
		}
	}
	if *update && !t.Failed() {
		write(t, files)
	}
}

func write(t *testing.T, files map[string]string) {
	t.Helper()
	for name, text := range files {
		path := filepath.Join(repository, "out", name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o644))
	}
}

// Each command shows how it is called, and the call is a legal one. The help
// of completion is cobra's, and has its examples in the long text.
func TestExamples(t *testing.T) {
	walk(newRoot(newTUI(&bytes.Buffer{}, &bytes.Buffer{})), func(cmd *cobra.Command) {
		path := cmd.CommandPath()
		if strings.HasPrefix(path, "afalg-policy completion") {
			return
		}
		lines := commandLines(cmd.Example)
		if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, path) }) {
			t.Errorf("%s: the help has no example that calls it", path)
		}
		for _, line := range lines {
			if words, ok := ourWords(line); ok {
				if err := accepts(words); err != nil {
					t.Errorf("help of %s: %s: %v", path, line, err)
				}
			}
		}
	})
}

// document is a Markdown file of the repository.
type document struct {
	path   string // from the root of the repository
	text   string
	blocks []block
}

// block is a fenced piece of a document.
type block struct {
	line     int // of its fence
	at       int // where its text begins in the document
	language string
	text     string
}

func documents(t *testing.T) []document {
	t.Helper()
	paths, err := filepath.Glob(repository + "/*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(repository+"/docs", func(path string, d fs.DirEntry, err error) error {
		if filepath.Ext(path) == ".md" {
			paths = append(paths, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var docs []document
	for _, path := range paths {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		name, err := filepath.Rel(repository, path)
		if err != nil {
			t.Fatal(err)
		}
		docs = append(docs, document{name, string(text), blocksOf(string(text))})
	}
	return docs
}

func blocksOf(text string) []block {
	var blocks []block
	var open *block
	at := 0
	for i, line := range strings.Split(text, "\n") {
		at += len(line) + 1
		fence, isFence := strings.CutPrefix(line, "```")
		switch {
		case isFence && open == nil:
			open = &block{line: i + 1, at: at, language: fence}
		case isFence:
			blocks = append(blocks, *open)
			open = nil
		case open != nil:
			open.text += line + "\n"
		}
	}
	return blocks
}

// commandLines joins the lines that a backslash continues, without
// indentation and prompts.
func commandLines(text string) []string {
	var lines []string
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", " ")) {
		lines = append(lines, strings.TrimPrefix(strings.TrimSpace(line), "$ "))
	}
	return lines
}

// Every command line of ours in a document is one that the program accepts;
// every make target and every shipped policy in it exists.
func TestDocumentedCommands(t *testing.T) {
	makefile, err := os.ReadFile(repository + "/Makefile")
	if err != nil {
		t.Fatal(err)
	}
	checked := 0
	for _, doc := range documents(t) {
		for _, b := range doc.blocks {
			for _, line := range commandLines(b.text) {
				target, isMake := strings.CutPrefix(line, "make ")
				words, isOurs := ourWords(line)
				switch {
				case isOurs:
					checked++
					if err := accepts(words); err != nil {
						t.Errorf("%s:%d: %s: %v", doc.path, b.line, line, err)
					}
				case isMake:
					checked++
					target, _, _ = strings.Cut(target, " ")
					if !bytes.Contains(makefile, []byte("\n"+target+":")) {
						t.Errorf("%s:%d: the Makefile has no target %s", doc.path, b.line, target)
					}
				}
			}
		}
	}
	if checked < 20 {
		t.Errorf("only %d commands were found in the documents", checked)
	}
}

// accepts asks the command tree about a command line, without running it.
func accepts(words []string) error {
	root := newRoot(newTUI(&bytes.Buffer{}, &bytes.Buffer{}))
	root.InitDefaultHelpCmd()
	cmd, rest, err := root.Find(words)
	if err != nil {
		return err
	}
	cmd.InitDefaultHelpFlag()
	cmd.InitDefaultVersionFlag()
	if err := cmd.ParseFlags(rest); err != nil {
		return err
	}
	args := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(args) > 0 && !slices.Contains(subcommands(cmd), args[0]) {
		return fmt.Errorf("%s has no command %s", cmd.CommandPath(), args[0])
	}
	if err := errors.Join(cmd.ValidateArgs(args), cmd.ValidateFlagGroups()); err != nil {
		return err
	}
	for _, arg := range args {
		if strings.HasPrefix(arg, "builtin:") {
			if _, _, err := plan.Load(arg, plan.ReadNamed); err != nil {
				return err
			}
		}
	}
	return nil
}

func TestAccepts(t *testing.T) {
	for line, want := range map[string]bool{
		"check policy.yaml":          true,
		"check builtin:fips -o json": true,
		"check builtin:nosuch":       false,
		"check":                      false,
		"check a b":                  false,
		"generate seccomp p --base none --format docker": true,
		"generate seccomp p --format xml":                false,
		"generate seccomp p --no-such-flag":              false,
		"generate nosuch p":                              false,
		"generate apparmor p --profile x --abstraction":  false,
		"nosuch p":              false,
		"completion nosuch":     false,
		"list nosuch":           false,
		"--version":             true,
		"help generate seccomp": true,
		"explain p --algorithm hash:sha1 --capability CAP_X": true,
	} {
		if err := accepts(strings.Fields(line)); (err == nil) != want {
			t.Errorf("%s: %v", line, err)
		}
	}
}

// ourWords splits a command line that calls the program into its arguments, up
// to the first operator of the shell.
func ourWords(line string) (words []string, ok bool) {
	words, _ = shellWords(line)
	if len(words) > 0 && words[0] == "sudo" {
		words = words[1:]
	}
	if len(words) == 0 || filepath.Base(words[0]) != "afalg-policy" {
		return nil, false
	}
	return words[1:], true
}

var word = regexp.MustCompile(`^(?:'[^']*'|"[^"]*"|[^\s'"|;&<>#]|\b#)+`)

// shellWords splits a line as a shell does, as far as the documents need it:
// quotes, but no escapes and no variables. The rest begins at the first operator
// or comment.
func shellWords(line string) (words []string, rest string) {
	for {
		line = strings.TrimSpace(line)
		w := word.FindString(line)
		if w == "" {
			return words, line
		}
		words = append(words, strings.NewReplacer(`'`, "", `"`, "").Replace(w))
		line = line[len(w):]
	}
}

func TestShellWords(t *testing.T) {
	for line, want := range map[string][]string{
		`a b`:                        {"a", "b"},
		`a --x 'hash:hmac(sha512)' `: {"a", "--x", "hash:hmac(sha512)"},
		`a "$PWD/b c":/d`:            {"a", "$PWD/b c:/d"},
		`a b | c`:                    {"a", "b"},
		`a > b`:                      {"a"},
		`a  # why`:                   {"a"},
		`a b; c`:                     {"a", "b"},
	} {
		if got, _ := shellWords(line); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

// The program prints what the documents show in a block "console". A
// policy that a document shows is policy.yaml to the commands below it.
// probe is left out: it tells of the machine.
func TestDocumentedOutput(t *testing.T) {
	root, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	compared := 0
	for _, doc := range documents(t) {
		t.Run(doc.path, func(t *testing.T) {
			t.Chdir(t.TempDir())
			text, rest := "", 0
			for _, b := range doc.blocks {
				switch {
				case b.language == "yaml" && strings.Contains(b.text, "version: 1\n") && !strings.Contains(b.text, "\nignore:"):
					if err := os.WriteFile("policy.yaml", []byte(b.text), 0o644); err != nil {
						t.Fatal(err)
					}
					if _, _, err := plan.Load("policy.yaml", plan.ReadNamed); err != nil {
						t.Errorf("line %d: the policy is invalid: %v", b.line, err)
					}
				case b.language == "console":
					got, n := replay(b.text)
					compared += n
					text += doc.text[rest:b.at] + got
					rest = b.at + len(b.text)
					if diff := cmp.Diff(b.text, got); diff != "" && !*update {
						t.Errorf("line %d: the output is another one (-document +program); read it, then run make generate:\n%s", b.line, diff)
					}
				}
			}
			if text += doc.text[rest:]; *update && text != doc.text {
				if err := os.WriteFile(filepath.Join(root, doc.path), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
	if compared < 5 {
		t.Errorf("only %d outputs were found in the documents", compared)
	}
}

// sessionStep takes a command, with the lines that a backslash continues, from
// what was printed.
var sessionStep = regexp.MustCompile(`(?s)^((?:[^\n]*\\\n)*[^\n]*)\n(.*)$`)

// replay runs the commands of a session and returns the session as it should
// look, and how many were run. Commands of others stay as they are.
func replay(session string) (got string, ran int) {
	status := 0
	var out strings.Builder
	for _, step := range strings.SplitAfter("\n"+session, "\n$ ")[1:] {
		m := sessionStep.FindStringSubmatch(strings.TrimSuffix(step, "$ "))
		command, shown := strings.ReplaceAll(m[1], "\\\n", " "), m[2]
		fmt.Fprintf(&out, "$ %s\n", m[1])
		words, ours := ourWords(command)
		_, operators := shellWords(command)
		switch {
		case ours && operators == "" && words[0] != "probe":
			var both bytes.Buffer
			status = run(words, strings.NewReader(""), &both, &both)
			out.Write(both.Bytes())
			ran++
		case command == "echo $?":
			fmt.Fprintln(&out, strconv.Itoa(status))
		default:
			out.WriteString(shown)
		}
	}
	return out.String(), ran
}

var link = regexp.MustCompile(`\]\(([^)#\s]*)(#[^)]*)?\)`)

// A link to a file of the repository leads to a file, and to a heading in it.
func TestDocumentedLinks(t *testing.T) {
	for _, doc := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(doc.text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			path := filepath.Join(repository, filepath.Dir(doc.path), m[1])
			if m[1] == "" {
				path = filepath.Join(repository, doc.path)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: broken link: %v", doc.path, err)
				continue
			}
			if m[2] != "" && !slices.Contains(anchors(t, path), m[2]) {
				t.Errorf("%s: %s has no heading for %s", doc.path, m[1], m[2])
			}
		}
	}
}

// anchors lists the headings of a document as a link names them.
func anchors(t *testing.T, path string) []string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllSubmatch(text, -1) {
		kept := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(string(m[1])), "")
		found = append(found, "#"+strings.ReplaceAll(kept, " ", "-"))
	}
	return found
}

// docs/dependencies.md names each module that is imported here and each
// package that scripts/install lists.
func TestDependenciesAreDocumented(t *testing.T) {
	text, err := os.ReadFile(repository + "/docs/dependencies.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := string(text)
	const imports = `{{range .Imports}}{{.}} {{end}}{{range .TestImports}}{{.}} {{end}}{{range .XTestImports}}{{.}} {{end}}`
	out, err := exec.Command("go", "list", "-tags=vm", "-f", imports, module+"...").Output()
	if err != nil {
		t.Fatal(err)
	}
	gomod, err := os.ReadFile(repository + "/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	paths := strings.Fields(string(out))
	// Modules of their own, so that what they need is no dependency of ours.
	for _, dir := range []string{"testdata/vm/containerd", "testdata/kubernetes", "packaging", ".github"} {
		nested, err := os.ReadFile(filepath.Join(repository, dir, "go.mod"))
		if err != nil {
			t.Fatal(err)
		}
		gomod = append(gomod, nested...)
		for _, m := range regexp.MustCompile(`(?m)^(?:\t|require )(\S+) v\S+$`).FindAllStringSubmatch(string(nested), -1) {
			paths = append(paths, m[1])
		}
	}
	unused := map[string]bool{} // by module
	for _, m := range regexp.MustCompile("`([a-z0-9]+[.][a-z0-9.]+/[^`]+)`").FindAllStringSubmatch(documented, -1) {
		tool := regexp.MustCompile(`(?m)^(?:\t|tool )` + regexp.QuoteMeta(m[1]) + `(/cmd/\S+)?$`) // without a version
		unused[m[1]] = !tool.Match(gomod)
	}
	for _, path := range paths {
		first, _, _ := strings.Cut(path, "/")
		if !strings.Contains(first, ".") || strings.HasPrefix(path+"/", module) {
			continue // of the standard library, or ours
		}
		found := false
		for m := range unused {
			if strings.HasPrefix(path+"/", m+"/") {
				found, unused[m] = true, false
			}
		}
		if !found {
			t.Errorf("docs/dependencies.md does not name the module of %s", path)
		}
	}
	for m, left := range unused {
		if left {
			t.Errorf("docs/dependencies.md names %s, which nothing imports", m)
		}
	}
	script, err := os.ReadFile(repository + "/scripts/install")
	if err != nil {
		t.Fatal(err)
	}
	packages := regexp.MustCompile(`(?m)^(?:build|demo|lint|test|vm|arm64|kubernetes|packages) +\| +(\S+)`).FindAllSubmatch(script, -1)
	if len(packages) < 10 {
		t.Errorf("only %d packages were found in scripts/install", len(packages))
	}
	for _, m := range packages {
		if !regexp.MustCompile(`[ |]` + regexp.QuoteMeta(string(m[1])) + `[ ,|]`).MatchString(documented) {
			t.Errorf("docs/dependencies.md does not name the Debian package %s", m[1])
		}
	}
}
