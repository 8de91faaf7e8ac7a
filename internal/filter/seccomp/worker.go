package seccomp

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// workerName is the argv[0] of a compiler: this same executable, which becomes
// one before the rest of the program is initialised.
const workerName = "afalg-policy-compiler"

func init() {
	if len(os.Args) == 1 && os.Args[0] == workerName {
		os.Exit(work())
	}
}

// work answers requests on standard input until that ends. It ends with the
// process that asks, even in the middle of a compilation.
func work() int {
	if err := confine(); err != nil {
		fmt.Fprintln(os.Stdout, err)
		return 1
	}
	requests := make(chan request)
	go func() {
		for {
			var r request
			if decode(os.Stdin, &r, maxRequest) != nil {
				os.Exit(0)
			}
			requests <- r
		}
	}()
	for r := range requests {
		if answer(r) != nil {
			return 1
		}
	}
	return 0
}

func answer(r request) error {
	var a reply
	programs, err := compileEach(r.Profile, r.Ways)
	if err != nil {
		a.Error = err.Error()
	}
	for _, p := range programs {
		a.Programs = append(a.Programs, packed{packInsns(p.Insns), p.Level, p.Arches})
	}
	message, err := encode(a, maxReply)
	if err != nil {
		return err
	}
	_, err = os.Stdout.Write(message)
	return err
}

// confine bounds this process's share of the machine. The process that asks
// bounds the processor time of each compilation; the limit here holds if that
// one is stopped.
func confine() error {
	data, err := dataSize("self")
	if err != nil {
		return err
	}
	whole := uint64(lifetime / time.Second)
	for _, l := range []struct {
		name     string
		resource int
		value    uint64
	}{
		{"RLIMIT_CORE", unix.RLIMIT_CORE, 0},
		{"RLIMIT_CPU", unix.RLIMIT_CPU, whole},
		{"RLIMIT_DATA", unix.RLIMIT_DATA, data + maxMemory},
		{"RLIMIT_FSIZE", unix.RLIMIT_FSIZE, maxProgram},
	} {
		if err := lower(l.resource, l.value); err != nil {
			return fmt.Errorf("setting %s to %d: %w", l.name, l.value, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up privileges: %w", err)
	}
	return nil
}

// lower sets a limit that may be lower already.
func lower(resource int, value uint64) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return err
	}
	l.Max = min(l.Max, value)
	l.Cur = l.Max
	return unix.Setrlimit(resource, &l)
}

// dataSize returns the bytes that RLIMIT_DATA has counted so far for a process:
// the Go runtime's mappings at its start, which are large under its race
// detector.
func dataSize(process string) (uint64, error) {
	path := "/proc/" + process + "/statm"
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	var size, resident, shared, code, lib, data uint64
	if _, err := fmt.Sscan(string(text), &size, &resident, &shared, &code, &lib, &data); err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	return data * uint64(os.Getpagesize()), nil
}
