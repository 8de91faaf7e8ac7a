package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// event is a line of go test -json (see go doc test2json).
type event struct {
	Action      string
	Package     string
	ImportPath  string // of output from the build
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

func (s suite) run(out io.Writer) tally {
	packages, err := s.packages()
	cmd := exec.Command("go", slices.Concat([]string{"test", "-json", "-count=1"}, s.args, packages)...)
	cmd.Stderr = os.Stderr
	var events io.ReadCloser
	if err == nil {
		events, err = cmd.StdoutPipe()
	}
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		fmt.Fprintf(out, "FAIL  go test: %v\n", err)
		return tally{failed: 1}
	}
	t, err := count(out, events)
	status := cmd.Wait()
	if err = errors.Join(err, status); err != nil && t.failed == 0 {
		fmt.Fprintf(out, "FAIL  go test: %v\n", err)
		t.failed++
	}
	return t
}

// packages lists all but those to leave out, if there are any.
func (s suite) packages() ([]string, error) {
	if len(s.but) == 0 {
		return nil, nil
	}
	out, err := exec.Command("go", "list", "./...").Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	all := strings.Fields(string(out))
	for _, name := range s.but {
		i := slices.IndexFunc(all, func(p string) bool { return strings.HasSuffix(p, "/"+name) })
		if i < 0 {
			return nil, fmt.Errorf("there is no package %s to leave out", name)
		}
		all = slices.Delete(all, i, i+1)
	}
	return all, nil
}

// count reads events to their end. It prints each package when it is done,
// with the output of what failed and the reason of what was skipped.
func count(out io.Writer, events io.Reader) (tally, error) {
	var total tally
	packages := map[string]*results{}
	builds := map[string]*strings.Builder{}
	for d := json.NewDecoder(events); ; {
		var e event
		if err := d.Decode(&e); errors.Is(err, io.EOF) {
			return total, nil
		} else if err != nil {
			return total, fmt.Errorf("read events: %w", err)
		}
		if e.Action == "build-output" {
			text(builds, e.ImportPath).WriteString(e.Output)
			continue
		}
		p := packages[e.Package]
		if p == nil {
			p = &results{actions: map[string]string{}, outputs: map[string]*strings.Builder{}}
			packages[e.Package] = p
		}
		p.add(e)
		if e.Test == "" && (e.Action == "pass" || e.Action == "fail" || e.Action == "skip") {
			if e.FailedBuild != "" {
				p.output("").WriteString(text(builds, e.FailedBuild).String())
			}
			total.add(p.finish(out, e))
		}
	}
}

// results are those of one package; the test "" is the package itself.
type results struct {
	names   []string // in the order in which they started
	actions map[string]string
	outputs map[string]*strings.Builder
}

func (r *results) add(e event) {
	switch e.Action {
	case "run":
		r.names = append(r.names, e.Test)
		r.actions[e.Test] = "fail" // until it is known better: it may never end
	case "output":
		r.output(e.Test).WriteString(e.Output)
	case "pass", "fail", "skip":
		r.actions[e.Test] = e.Action
	}
}

func (r *results) output(test string) *strings.Builder { return text(r.outputs, test) }

func text(texts map[string]*strings.Builder, key string) *strings.Builder {
	if texts[key] == nil {
		texts[key] = &strings.Builder{}
	}
	return texts[key]
}

// finish counts the tests that have no subtests. A parent counts only if it
// failed and none of its subtests did, and a package likewise.
func (r *results) finish(out io.Writer, end event) tally {
	var t tally
	for _, name := range r.names {
		switch action := r.actions[name]; {
		case action == "fail" && !r.below(name, "fail"):
			t.failed++
			fmt.Fprintf(out, "FAIL  %s %s\n%s", end.Package, name, r.output(name))
		case action == "skip" && !r.below(name, ""):
			t.skipped++
			fmt.Fprintf(out, "skip  %s %s\n%s", end.Package, name, r.output(name))
		case action == "pass" && !r.below(name, ""):
			t.passed++
		}
	}
	if end.Action == "fail" && t.failed == 0 {
		t.failed++
		fmt.Fprintf(out, "FAIL  %s\n%s", end.Package, r.output(""))
	}
	if len(r.names) > 0 {
		fmt.Fprintf(out, "%-5s %s: %v (%.1fs)\n", verdict(t), end.Package, t, end.Elapsed)
	}
	return t
}

func verdict(t tally) string {
	if t.failed > 0 {
		return "FAIL"
	}
	return "ok"
}

// below says whether a subtest, at any depth, ended with the action; "" means
// any.
func (r *results) below(name, action string) bool {
	for _, other := range r.names {
		if strings.HasPrefix(other, name+"/") && (action == "" || r.actions[other] == action) {
			return true
		}
	}
	return false
}
