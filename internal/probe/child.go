package probe

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ask puts each question to a child that lives until a question kills it, and
// returns as many answers. Once a child hangs, the remaining questions count as
// unanswered.
func (p *prober) ask(ctx context.Context, questions []ask) ([]answer, error) {
	var answers []answer
	for len(answers) < len(questions) {
		some, err := p.child(ctx, questions[len(answers):])
		if err != nil {
			return nil, err
		}
		answers = append(answers, some...)
		if n := len(answers); answers[n-1].Hung {
			for range questions[n:] {
				answers = append(answers, answer{Hung: true})
			}
		}
	}
	return answers, nil
}

// child asks until the end or until the child dies; it returns at least one
// answer, the last of which may be the death.
func (p *prober) child(ctx context.Context, questions []ask) ([]answer, error) {
	args, err := encodeAsks(questions)
	if err != nil {
		return nil, err
	}
	limited, cancel := context.WithTimeout(ctx, p.opt.Timeout)
	defer cancel()
	cmd, err := self(limited, append(p.opt.Child[:len(p.opt.Child):len(p.opt.Child)], args...))
	if err != nil {
		return nil, err
	}
	var out, diagnosis bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &diagnosis, time.Second
	runErr := cmd.Run()
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	answers, err := decodeAnswers(&out, len(questions))
	if err != nil {
		return nil, err
	}
	switch last, died := death(runErr, limited.Err()); {
	case len(answers) == len(questions):
		return answers, nil
	case died:
		return append(answers, last), nil
	case runErr != nil:
		return nil, fmt.Errorf("asking in a child process %s: %w: %s", cmd.Path, runErr, strings.TrimSpace(diagnosis.String()))
	case len(answers) > 0 && answers[len(answers)-1].Signal != "":
		return answers, nil
	}
	return nil, fmt.Errorf("asking in a child process %s: it left after %d of %d answers", cmd.Path, len(answers), len(questions))
}

// death reports whether a signal or our patience ended the child, as the answer
// to the question that it was at.
func death(runErr, limit error) (answer, bool) {
	if limit != nil {
		return answer{Hung: true}, true
	}
	var exit *exec.ExitError
	if errors.As(runErr, &exit) {
		if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			return answer{Signal: unix.SignalName(status.Signal())}, true
		}
	}
	return answer{}, false
}

func encodeAsks(questions []ask) ([]string, error) {
	b, err := json.Marshal(questions)
	if err != nil {
		return nil, fmt.Errorf("encoding the questions: %w", err)
	}
	return []string{string(b)}, nil
}

func decodeAsks(args []string) ([]ask, error) {
	var questions []ask
	if len(args) != 1 {
		return nil, fmt.Errorf("the questions are one argument, got %d", len(args))
	}
	if err := json.Unmarshal([]byte(args[0]), &questions); err != nil {
		return nil, fmt.Errorf("reading the questions: %w", err)
	}
	return questions, nil
}

// decodeAnswers reads whole lines; it skips a line that the child died in.
func decodeAnswers(out *bytes.Buffer, most int) ([]answer, error) {
	var answers []answer
	for {
		line, err := out.ReadBytes('\n')
		if err != nil {
			return answers, nil
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil || len(answers) == most {
			return nil, fmt.Errorf("a child process of the prober wrote %q, which answers nothing", line)
		}
		answers = append(answers, a)
	}
}

// self is a command that runs this very binary.
func self(ctx context.Context, args []string) (*exec.Cmd, error) {
	path, err := executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin = os.Stdin // the default would open /dev/null
	return cmd, nil
}

// executable finds the binary: by /proc, or else by the name that it was
// executed by (AT_EXECFN), or else by argv[0].
func executable() (string, error) {
	const proc = "/proc/self/exe"
	if unix.Access(proc, unix.X_OK) == nil {
		return proc, nil
	}
	for _, name := range []string{execFn(), os.Args[0]} {
		if !strings.ContainsRune(name, filepath.Separator) {
			name, _ = exec.LookPath(name)
		}
		if name == "" {
			continue
		}
		if path, err := filepath.Abs(name); err == nil && unix.Access(path, unix.X_OK) == nil {
			return path, nil
		}
	}
	return "", errors.New("finding this binary to run it again: there is no /proc, and its path is gone; call it by an absolute path")
}

// execFn returns the path given to execve, from the auxiliary vector.
func execFn() string {
	const atExecFn = 31
	aux, err := unix.Auxv()
	if err != nil {
		return ""
	}
	for _, entry := range aux {
		if entry[0] == atExecFn {
			return cString(entry[1])
		}
	}
	return ""
}

// cString reads a string of the initial stack, which the kernel ended with a
// zero byte and nobody moves.
func cString(address uintptr) string {
	return unix.BytePtrToString(*(**byte)(unsafe.Pointer(&address)))
}
