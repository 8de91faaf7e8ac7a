package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Texts that anybody may write are read within bounds. Time is processor time,
// so that a busy machine fails nothing.
const (
	hostileSeconds = 40
	hostileMemory  = 384 << 10 // KiB
)

// withinLimits runs the program, and returns what it says on standard error.
func withinLimits(t *testing.T, stdin string, args ...string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var stderr bytes.Buffer
	cmd := &exec.Cmd{Path: self, Args: append([]string{"afalg-policy"}, args...), Stderr: &stderr, Stdin: strings.NewReader(stdin)}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := unix.Rlimit{Cur: hostileSeconds, Max: hostileSeconds}
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_CPU, &limit, nil); err != nil {
		t.Error(err)
	}
	_ = cmd.Wait() // the status is looked at
	if !cmd.ProcessState.Exited() {
		t.Errorf("%v: %v: %.300s", args, cmd.ProcessState, &stderr)
	}
	if got := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss; got > hostileMemory {
		t.Errorf("%v: %d KiB of memory, want %d at most", args, got, hostileMemory)
	}
	return stderr.String()
}

// fill repeats a part up to a size.
func fill(size int, before, part, after string) string {
	return before + strings.Repeat(part, (size-len(before)-len(after))/len(part)) + after
}

func TestHostilePolicies(t *testing.T) {
	const size = 1 << 20
	const parts = ":1:1: the file has too many parts: its lines, and twice its commas and opening brackets, are more than 131072; split it with include"
	for _, tt := range []struct{ name, text, want string }{
		{"list", fill(size, "[", "a,", "a]"), parts},
		{"mapping", fill(size, "{", "a,", "a}"), parts},
		{"pairs", fill(size, "{", "a:,", "a}"), parts},
		{"keys", fill(size, "{", "?a,", "a}"), parts},
		{"lists", fill(size, "[", "[],", "a]"), parts},
		{"aliases", fill(size, "[&a a,", "*a,", "a]"), parts},
		{"anchors", fill(size, "[", "&a a,", "a]"), parts},
		{"lines", fill(size, "", "-\n", ""), parts},
		{"deep list", fill(size/20, "", "[", ""), "nested deeper than any policy"},
		{"deep mapping", fill(size/10, "", "{a: ", ""), "nested deeper than any policy"},
		{"text", fill(size, "\"", "\\n", "\""), "must be a mapping"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "policy.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := withinLimits(t, "", "check", path); !strings.Contains(got, tt.want) {
				t.Errorf("%.300s\nwant %s", got, tt.want)
			}
		})
	}
}

func TestHostileIgnoreFile(t *testing.T) {
	dir := t.TempDir()
	list, profile := filepath.Join(dir, "ignore.yaml"), filepath.Join(dir, "profile.json")
	must(t, os.WriteFile(profile, []byte("{}"), 0o600))
	for text, want := range map[string]string{
		fill(1<<20, "version: 1\nignore: [", "a,", "a]"): "the file has too many parts",
		fill(50_000, "version: 1\nignore: ", "[", ""):    "nested deeper than any ignore file",
	} {
		must(t, os.WriteFile(list, []byte(text), 0o600))
		if got := withinLimits(t, "", "verify", "--ignore-file", list, profile); !strings.Contains(got, want) {
			t.Errorf("%.300s\nwant %s", got, want)
		}
	}
}

// TestHostileIncludes has a policy that includes a thousand large ones.
func TestHostileIncludes(t *testing.T) {
	dir := t.TempDir()
	var main strings.Builder
	main.WriteString("version: 1\nname: a\ninclude:\n")
	part := fill(1<<20, "version: 1\nname: b\n", "# a comment on a line of its own, which says nothing\n", "")
	for i := range 999 {
		name := fmt.Sprintf("%d.yaml", i)
		fmt.Fprintf(&main, "  - %s\n", name)
		if i == 0 {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(part), 0o600); err != nil {
				t.Fatal(err)
			}
		} else if err := os.Link(filepath.Join(dir, "0.yaml"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(path, []byte(main.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := withinLimits(t, "", "check", path); !strings.Contains(got, "include 8.yaml: more than 8192 KiB in all files") {
		t.Errorf("%.300s", got)
	}
}

// hostileProfile is what verify and generate say of a profile.
type hostileProfile struct{ name, text, verify, generate string }

func withRules(rest string) string {
	return `{"defaultAction":"SCMP_ACT_ERRNO","architectures":["SCMP_ARCH_X86_64"],` + rest + `}`
}

func socketRule(args string) string {
	return `{"names":["socket"],"action":"SCMP_ACT_ALLOW","args":[` + args + `]}`
}

func TestHostileProfiles(t *testing.T) {
	const values = ": more than 262144 values up to here"
	for _, tt := range []hostileProfile{
		{"numbers", fill(16<<20, "[", "0,", "0]"), values, values},
		{"strings", fill(16<<20, strings.TrimSuffix(withRules(`"x":[`), "}"), `"",`, `""]}`), values, values},
		{"rules", withRules(`"syscalls":[` + strings.Repeat(`{"names":["read"],"action":"SCMP_ACT_ALLOW"},`, 100_000) + socketRule("") + `]`), values, values},
		{"names", withRules(`"syscalls":[{"names":[` + strings.Repeat(`"x",`, 100_000) + `"x"],"action":"SCMP_ACT_ALLOW"}]`),
			"more than 8192 rules up to here", "rules: libseccomp is given 8192 at most"},
		{"a long name", withRules(`"syscalls":[{"names":["` + strings.Repeat("n", 4<<20) + `"],"action":"SCMP_ACT_ALLOW"}]`), "", ""},
		{"architectures", `{"defaultAction":"SCMP_ACT_ERRNO","architectures":[` + strings.Repeat(`"SCMP_ARCH_X86_64",`, 99_999) + `"SCMP_ARCH_X86"],"syscalls":[]}`,
			"100000 entries in architectures: there are not more than 64 architectures", "100000 entries in architectures"},
		{"maps", `{"defaultAction":"SCMP_ACT_ERRNO","archMap":[{"architecture":"SCMP_ARCH_X86_64","subArchitectures":[` + strings.Repeat(`"SCMP_ARCH_X86",`, 99_999) + `"SCMP_ARCH_X32"]}],"syscalls":[]}`,
			"100000 entries in subArchitectures", "100000 entries in subArchitectures"},
		{"depth", strings.Repeat("[", 8<<20), "exceeded max depth", "exceeded max depth"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := tt.write(t)
			tt.verified(t, path)
			tt.hardened(t, path)
		})
	}
	t.Run("rules that multiply", func(t *testing.T) {
		if testing.Short() { // it takes what two compilations may
			return
		}
		tt := multiplying()
		tt.verified(t, tt.write(t))
	})
}

// TestLongMultiplyingRules hardens what each compilation is ended at.
func TestLongMultiplyingRules(t *testing.T) {
	tt := multiplying()
	tt.hardened(t, tt.write(t))
}

// multiplying has rules of which libseccomp makes a program that never ends.
func multiplying() hostileProfile {
	ranges := make([]string, 2000)
	for i := range ranges {
		ranges[i] = socketRule(fmt.Sprintf(`{"index":0,"value":%d,"op":"SCMP_CMP_GE"},{"index":1,"value":%d,"op":"SCMP_CMP_EQ"}`, 10*i, i))
	}
	return hostileProfile{text: withRules(`"syscalls":[` + strings.Join(ranges, ",") + `]`), verify: "it took more than "}
}

func (h hostileProfile) write(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "profile.json")
	if err := os.WriteFile(path, []byte(h.text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func (h hostileProfile) verified(t *testing.T, path string) {
	t.Helper()
	if got := withinLimits(t, "", "verify", path); !strings.Contains(got, h.verify) {
		t.Errorf("verify: %.300s\nwant %s", got, h.verify)
	}
}

// hardened gives the profile to generate, and to the hook as a container's.
func (h hostileProfile) hardened(t *testing.T, path string) {
	t.Helper()
	if got := withinLimits(t, "", "generate", "seccomp", "builtin:baseline", "--base", path); !strings.Contains(got, h.generate) {
		t.Errorf("generate: %.300s\nwant %s", got, h.generate)
	}
	spec := `{"ociVersion":"1.0.2","process":{"args":["/bin/true"]},"linux":{"seccomp":` + h.text + `}}`
	withinLimits(t, spec, "hook", "precreate", "--policy", "builtin:baseline")
}

// TestPseudoFiles names regular files that block, or that reading changes, for
// everything that the command line reads.
func TestPseudoFiles(t *testing.T) {
	for _, args := range [][]string{
		{"verify"}, {"verify", "--bpf"}, {"check"}, {"explain", "--binary", "/bin/true", "--algorithm", "hash:sha256"},
		{"generate", "seccomp", "builtin:baseline", "--base"}, {"generate", "oci", "builtin:baseline", "--config"},
	} {
		for _, path := range []string{"/proc/kmsg", "/proc/version", "/sys/kernel/uevent_seqnum"} {
			got := withinLimits(t, "", append(args[:len(args):len(args)], path)...)
			if want := ", whose files the kernel makes up: copy it to a file first"; !strings.Contains(got, want) {
				t.Errorf("%v %s: %.300s", args, path, got)
			}
		}
	}
}

// hostileProgram computes with all arguments at every step, so that no step can
// be followed exactly.
func hostileProgram(seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	var raw []byte
	add := func(code uint16, jt, jf uint8, k uint32) {
		raw = binary.LittleEndian.AppendUint16(raw, code)
		raw = binary.LittleEndian.AppendUint32(append(raw, jt, jf), k)
	}
	load := func() { add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, 16+4*random.Uint32N(12)) }
	add(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, 0, 0, 4)
	add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 1, 0, unix.AUDIT_ARCH_X86_64)
	add(unix.BPF_RET, 0, 0, unix.SECCOMP_RET_KILL_THREAD)
	operations := []uint16{unix.BPF_ADD, unix.BPF_SUB, unix.BPF_MUL, unix.BPF_DIV, unix.BPF_XOR, unix.BPF_LSH, unix.BPF_RSH}
	for len(raw) < 8*(unix.BPF_MAXINSNS-10) {
		load()
		add(unix.BPF_MISC|unix.BPF_TAX, 0, 0, 0)
		load()
		add(unix.BPF_ALU|unix.BPF_X|operations[random.IntN(len(operations))], 0, 0, 0)
		add(unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K, 0, 1, random.Uint32())
		add(unix.BPF_RET, 0, 0, unix.SECCOMP_RET_ERRNO|random.Uint32N(4096))
	}
	add(unix.BPF_RET, 0, 0, unix.SECCOMP_RET_ALLOW)
	return raw
}

// TestHostilePrograms asks the decider what it cannot find out: undecided is no
// yes, and comes in time.
func TestHostilePrograms(t *testing.T) {
	var args []string
	for i := range uint64(2) {
		path := filepath.Join(t.TempDir(), "program.bpf")
		if err := os.WriteFile(path, hostileProgram(i), 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--bpf", path)
	}
	if got := withinLimits(t, "", append([]string{"verify"}, args[:2]...)...); got != "" {
		t.Errorf("verify: %s", got)
	}
	if got := withinLimits(t, "", append([]string{"verify", "--equal"}, args...)...); got != "" {
		t.Errorf("verify --equal: %s", got)
	}
}
