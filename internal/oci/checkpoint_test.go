package oci

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// pb writes a message of protocol buffers: fields and their values, which are
// numbers or messages.
func pb(fields ...any) []byte {
	var out []byte
	for i := 0; i < len(fields); i += 2 {
		field := protowire.Number(fields[i].(int))
		switch v := fields[i+1].(type) {
		case int:
			out = protowire.AppendVarint(protowire.AppendTag(out, field, protowire.VarintType), uint64(v))
		case []byte:
			out = protowire.AppendBytes(protowire.AppendTag(out, field, protowire.BytesType), v)
		}
	}
	return out
}

// ofCRIU is an image with one record.
func ofCRIU(kind uint32, record []byte) []byte {
	var out []byte
	for _, n := range []uint32{anyImage, kind, uint32(len(record))} {
		out = binary.NativeEndian.AppendUint32(out, n)
	}
	return append(out, record...)
}

// Parts of images, as CRIU 3.17 writes them: fields that nobody asks for are
// among them.
var (
	closes = program(unix.SECCOMP_RET_ERRNO | 97)
	opens  = program(unix.SECCOMP_RET_ALLOW)
	// AF_ALG is left to a listener, all else refused.
	notifies = cbpf.Program{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 16},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.AF_ALG, Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_USER_NOTIF},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | 97},
	}.Bytes(cbpf.Little)
	alive   = pb(1, 1, 2, 0, 3, 0, 4, 0x400000, 6, []byte("sleep"))
	dead    = pb(1, taskDead, 2, 0)
	atFirst = thread(11, unix.SECCOMP_MODE_FILTER, 12, 0)
)

const synced = unix.SECCOMP_FILTER_FLAG_TSYNC

func program(action uint32) []byte {
	return cbpf.Program{{Code: unix.BPF_RET | unix.BPF_K, K: action}}.Bytes(cbpf.Little)
}

func thread(fields ...any) []byte { return append(pb(1, 0, 2, 0, 7, pb(1, 0)), pb(fields...)...) }

func first(thread []byte) []byte { return pb(1, 1, 2, pb(1, 0), 3, alive, 5, thread) }

func further(thread []byte) []byte { return pb(1, 1, 2, pb(1, 0), 5, thread) }

// filters is the record of seccomp.img.
func filters(list ...[]byte) []byte {
	var out []byte
	for _, f := range list {
		out = append(out, pb(1, f)...)
	}
	return out
}

// images writes a checkpoint: the record of seccomp.img, and those of threads.
func images(t *testing.T, seccomp []byte, cores ...[]byte) string {
	t.Helper()
	dir := t.TempDir()
	if seccomp != nil {
		seccomp = ofCRIU(seccompImage, seccomp)
		if err := os.WriteFile(filepath.Join(dir, seccompFile), seccomp, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, core := range cores {
		name := "core-" + string(rune('1'+i)) + ".img"
		if err := os.WriteFile(filepath.Join(dir, name), ofCRIU(coreImage, core), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRestore(t *testing.T) {
	closed := filters(pb(1, closes, 3, synced))
	alone := filters(pb(1, closes, 3, 0))
	const (
		strange = "it is not as CRIU writes it"
		none    = "a process was under no filter"
		open    = "a process was under a filter by which socket on x86-64 reaches AF_ALG"
	)
	for _, tt := range []struct {
		name    string
		seccomp []byte
		cores   [][]byte
		want    string // part of the refusal; "" if it is restored
	}{
		{"closed", closed, [][]byte{first(atFirst)}, ""},
		{"closed, by one of two", filters(pb(1, opens, 2, 1, 3, 0), pb(1, closes, 3, 0)), [][]byte{first(atFirst)}, ""},
		{"strict", nil, [][]byte{first(thread(11, unix.SECCOMP_MODE_STRICT))}, ""},
		{"a dead process", closed, [][]byte{first(atFirst), pb(1, 1, 3, dead)}, ""},
		{"a thread that follows", closed, [][]byte{first(atFirst), further(thread())}, ""},
		{"a thread of its own", alone, [][]byte{first(atFirst), further(atFirst)}, ""},

		{"no filter", nil, [][]byte{first(thread())}, none},
		{"a second process without", closed, [][]byte{first(atFirst), first(thread())}, none},
		{"a filter that is not loaded", closed, [][]byte{first(thread(12, 0))}, none},
		{"a thread that does not follow", alone, [][]byte{first(atFirst), further(thread())}, none},
		{"a thread of a strict process", nil, [][]byte{first(thread(11, unix.SECCOMP_MODE_STRICT)), further(thread())}, none},
		{"a thread that the kernel leaves out", closed, [][]byte{first(atFirst), further(atFirst)}, "some threads have filters of their own"},
		{"a thread that poses as a process", filters(pb(1, closes, 3, synced), pb(1, closes, 3, 0)), [][]byte{first(atFirst), first(thread(11, 2, 12, 1))}, "some threads have filters of their own"},
		{"the same in strict mode", closed, [][]byte{first(atFirst), first(thread(11, unix.SECCOMP_MODE_STRICT))}, "some threads have filters of their own"},
		{"an open filter", filters(pb(1, opens)), [][]byte{first(atFirst)}, open},
		{"an open filter behind a closed one", filters(pb(1, closes), pb(1, opens)), [][]byte{first(atFirst), first(thread(11, 2, 12, 1))}, open},
		{"left to a listener that did not come along", filters(pb(1, notifies)), [][]byte{first(atFirst)}, ""},
		{"left to a listener that can be replaced", filters(pb(1, program(unix.SECCOMP_RET_USER_NOTIF))), [][]byte{first(atFirst)}, "a listener that can be replaced"},
		{"a listener of its own", filters(pb(1, closes, 3, unix.SECCOMP_FILTER_FLAG_NEW_LISTENER)), [][]byte{first(atFirst)}, "with the flags 0x8"},
		{"filters in a circle", filters(pb(1, closes, 2, 0)), [][]byte{first(atFirst)}, strange},
		{"a filter that is missing", closed, [][]byte{first(thread(11, 2, 12, 1))}, strange},
		{"no number", closed, [][]byte{first(thread(11, 2))}, strange},
		{"a number of 33 bits", closed, [][]byte{first(thread(11, 2, 12, 1<<32))}, strange},
		{"no filters at all", nil, [][]byte{first(atFirst)}, strange},
		{"a mode of later", closed, [][]byte{first(thread(11, 3, 12, 0))}, strange},
		{"a mode twice", closed, [][]byte{first(thread(11, 2, 11, 0, 12, 0))}, strange},
		{"a mode that is a text", closed, [][]byte{first(thread(11, []byte{2}, 12, 0))}, strange},
		{"a thread twice", closed, [][]byte{pb(1, 1, 3, alive, 5, atFirst, 5, thread(11, 0))}, strange},
		{"a program twice", filters(pb(1, closes, 1, opens)), [][]byte{first(atFirst)}, strange},
		{"no program", filters(pb(3, 0)), [][]byte{first(atFirst)}, "it is empty"},
		{"alive, and nothing is known", closed, [][]byte{pb(1, 1, 3, alive)}, strange},
		{"an old checkpoint", closed, [][]byte{pb(1, 1, 3, append(pb(11, 2, 12, 0), alive...), 5, atFirst)}, "before 3.10"},
		{"cut off", closed, [][]byte{{0x2a, 0x05, 0x00}}, strange},
		{"no process", closed, nil, "it has no process"},
		{"a dead process alone", closed, [][]byte{pb(1, 1, 3, dead)}, "it has no process"},
		{"a thread alone", closed, [][]byte{further(thread())}, "it has no process"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := images(t, tt.seccomp, tt.cores...)
			out, err := restored(t, "harden", dir)
			refused(t, err, tt.want)
			if err == nil && (out.Verdict != Closed || string(out.Spec.Text()) == openSpec) {
				t.Errorf("%s\n%s", out.Verdict, out.Spec.Text())
			}
		})
	}
}

func restored(t *testing.T, unconfined, dir string) (Outcome, error) {
	t.Helper()
	spec, err := ReadSpec([]byte(openSpec))
	if err != nil {
		t.Fatal(err)
	}
	return options(t, unconfined).Restore(spec, plain, dir)
}

func refused(t *testing.T, err error, want string) {
	t.Helper()
	var no *NotStartedError
	switch {
	case want == "" && err != nil:
		t.Error(err)
	case want != "" && (!errors.As(err, &no) || !strings.Contains(no.Text, want)):
		t.Errorf("%v; want a refusal with %s", err, want)
	}
}

// TestRestoreFiles: what is proved is what is restored.
func TestRestoreFiles(t *testing.T) {
	closed, core := filters(pb(1, closes)), first(atFirst)
	for _, tt := range []struct {
		name, want string
		spoil      func(dir, core string) error
	}{
		{"a directory of all", "can be written by others (mode 0777), who could change it before", func(dir, _ string) error { return os.Chmod(dir, 0o777) }},
		{"an image of all", "can be written by others", func(_, core string) error { return os.Chmod(core, 0o666) }},
		{"somebody's image", "belongs to user 1000", func(dir, _ string) error { return os.Chown(filepath.Join(dir, seccompFile), 1000, 0) }},
		{"a link", "it is not as CRIU writes it", func(dir, core string) error {
			return errors.Join(os.Rename(core, filepath.Join(dir, "away")), os.Symlink("away", core))
		}},
		{"another kind of image", "it is not as CRIU writes it", func(dir, core string) error { return os.Rename(filepath.Join(dir, seccompFile), core) }},
		{"a second record", "it is not as CRIU writes it", func(_, path string) error {
			return os.WriteFile(path, append(ofCRIU(coreImage, core), core...), 0o600)
		}},
		{"no checkpoint", "no such file", func(dir, _ string) error { return os.RemoveAll(dir) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := images(t, closed, core)
			if err := tt.spoil(dir, filepath.Join(dir, "core-1.img")); err != nil {
				t.Fatal(err)
			}
			_, err := restored(t, "harden", dir)
			refused(t, err, tt.want)
		})
	}
	_, err := restored(t, "harden", "")
	refused(t, err, "name it by --image-path")
}

// TestRestoreUnconfined: what has no filter is let through where the policy lets
// such containers through. A filter that is open never is.
func TestRestoreUnconfined(t *testing.T) {
	free := images(t, nil, first(thread()))
	if out, err := restored(t, "allow", free); err != nil || out.Verdict != Unconfined || out.Reason == "" {
		t.Errorf("%+v, %v", out, err)
	}
	_, err := restored(t, "allow", images(t, filters(pb(1, opens)), first(atFirst)))
	refused(t, err, "reaches AF_ALG")
}

// TestRestoreConfigured: an annotation may have CRIU take other images.
func TestRestoreConfigured(t *testing.T) {
	text := strings.Replace(openSpec, "{", `{"annotations": {"org.criu.config": "/tmp/criu.conf"},`, 1)
	spec, err := ReadSpec([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	_, err = options(t, "harden").Restore(spec, plain, images(t, filters(pb(1, closes)), first(atFirst)))
	refused(t, err, `the annotation "org.criu.config"`)
}

// FuzzCheckpoint: whatever an image holds, reading it comes to an end.
func FuzzCheckpoint(f *testing.F) {
	f.Add(filters(pb(1, closes, 3, synced)), first(atFirst))
	f.Fuzz(func(t *testing.T, seccomp, core []byte) {
		cp, err := readCheckpoint(images(t, seccomp, core))
		if err == nil && !cp.unfiltered && len(cp.stacks) == 0 {
			m, _ := parse(core)
			thread, _, _ := m.message(coreThread)
			if mode, _, _ := thread.number(threadMode); mode != unix.SECCOMP_MODE_STRICT && thread != nil {
				t.Error("no filter, and nobody without one")
			}
		}
	})
}
