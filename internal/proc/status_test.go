package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// statusText prints as fs/proc/array.c does, the name of the thread escaped.
func statusText(s Status) string {
	flag := 0
	if s.NoNewPrivs {
		flag = 1
	}
	text := fmt.Sprintf("Name:\t%s\nUmask:\t0022\nState:\t%s (sleeping)\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t1\nTracerPid:\t%d\n"+
		"Uid:\t%d\t%d\t%d\t%d\nGid:\t%d\t%d\t%d\t%d\nFDSize:\t64\nGroups:\t%s\nNStgid:\t1\n",
		escaped(string(s.Name)), []byte{s.State}, s.TGID, s.PID, s.Tracer,
		s.UID.Real, s.UID.Effective, s.UID.Saved, s.UID.FS, s.GID.Real, s.GID.Effective, s.GID.Saved, s.GID.FS, s.groups)
	if s.NamespaceIDs > 0 {
		text += "NSpid:" + strings.Repeat("\t1", s.NamespaceIDs) + "\n"
	}
	text += fmt.Sprintf("Threads:\t1\nSigQ:\t0/5\nCapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\nNoNewPrivs:\t%d\n",
		s.Inheritable, s.Permitted, s.Effective, s.Bounding, s.Ambient, flag)
	if s.Seccomp >= 0 {
		text += fmt.Sprintf("Seccomp:\t%d\n", s.Seccomp)
	}
	if s.Filters >= 0 {
		text += fmt.Sprintf("Seccomp_filters:\t%d\n", s.Filters)
	}
	return text + "Mems_allowed:\t1\n"
}

func escaped(name string) string {
	return strings.NewReplacer("\n", `\n`, `\`, `\\`).Replace(name)
}

var someStatus = Status{
	Name: []byte("a"), State: 'S', PID: 12, TGID: 11, Tracer: 7, UID: IDs{0, 4294967295, 1, 2}, GID: IDs{3, 4, 5, 6}, groups: []byte("0 1 "), NamespaceIDs: 2,
	Inheritable: 1, Permitted: 2, Effective: 1 << 63, Bounding: 0x1ffffffffff, Ambient: 5, NoNewPrivs: true, Seccomp: 2, Filters: 3,
}

func TestParseStatus(t *testing.T) {
	text := statusText(someStatus)
	same := func(*Status) {}
	for _, tt := range []struct {
		old, new, err string
		want          func(*Status)
	}{
		{"", "", "", same},
		{"Name:\ta", "Name:\ta\\nTgid:\t1\\nUid:\t1", "", func(s *Status) { s.Name = []byte("a\\nTgid:\t1\\nUid:\t1") }},
		{"State:\tS", "State:\tZ", "", func(s *Status) { s.State = 'Z' }},
		{"State:\tS (sleeping)", "State:\t", "State is empty", nil},
		{"Tgid:\t11", "Tgid:\t", "Tgid is empty", nil},
		{"Tgid:\t11", "Tgid:\t0", "thread 12 of process 0", nil},
		{"Tgid:\t11", "Tgid:\t-1", `Tgid is "-1"`, nil},
		{"Tgid:\t11", "Tgid:\t2147483648", `Tgid is "2147483648"`, nil},
		{"\nPid:", "\nPit:", "no Pid", nil},
		{"\t4294967295\t1", "\t4294967296\t1", `Uid is "4294967296"`, nil},
		{"\t4294967295\t1\t2", "", "Uid is empty", nil},
		{"\t4294967295\t1", "\t99999999999999999999\t1", `Uid is "99999999999999999999"`, nil},
		{"\nGid:\t3", "\nGid:\t", "Gid is empty", nil},
		{"\nGroups", "\nGroupz", "no Groups", nil},
		{"NSpid:\t1\t1\n", "NSpid:\t1\n", "", func(s *Status) { s.NamespaceIDs = 1 }},
		{"NSpid:\t1\t1\n", "", "", func(s *Status) { s.NamespaceIDs = 0 }}, // without PID namespaces
		{"CapEff:\t8", "CapEff:\t18", `CapEff is "18000000000000000"`, nil},
		{"CapEff:\t8", "CapEff:\tg", `CapEff is "g000000000000000"`, nil},
		{"CapEff:\t8", "CapEff:\tA", `CapEff is "A000000000000000"`, nil},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t2", `NoNewPrivs is "2"`, nil},
		{"NoNewPrivs:\t1\n" + text[strings.Index(text, "Seccomp:"):], "NoNewPrivs:\t1", "NoNewPrivs is cut off", nil},
		{"NoNewPrivs", "NoOldPrivs", "no NoNewPrivs", nil},
		{"CapInh", "CapXxx", "no CapInh", nil},
		{"Seccomp:\t2\nSeccomp_filters:\t3\n", "Seccomp:\t1\n", "", func(s *Status) { s.Seccomp, s.Filters = 1, -1 }}, // before 5.9
		{"Seccomp:\t2\nSeccomp_filters:\t3\n", "", "", func(s *Status) { s.Seccomp, s.Filters = -1, -1 }},             // without seccomp
		{"Seccomp:\t2", "Seccomp:\tx", `Seccomp is "x"`, nil},
		{"Seccomp_filters:\t3", "Seccomp_filters:\t", "Seccomp_filters is empty", nil},
	} {
		if !strings.Contains(text, tt.old) {
			t.Fatalf("no %q to replace", tt.old)
		}
		s, err := ParseStatus([]byte(strings.Replace(text, tt.old, tt.new, 1)))
		want, got := Status{}, ""
		if err != nil {
			got = err.Error()
		} else if tt.want != nil {
			want = someStatus
			tt.want(&want)
		}
		if got != tt.err || !reflect.DeepEqual(s, want) {
			t.Errorf("%q for %q: %+v, %q\nwant %+v, %q", tt.new, tt.old, s, got, want, tt.err)
		}
	}
}

func TestGroups(t *testing.T) {
	for text, want := range map[string][]int{"0 1 ": {0, 1}, " ": nil, "": nil, "4294967295": {4294967295}} {
		s := Status{groups: []byte(text)}
		if got, err := s.Groups(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	s := Status{groups: []byte("1 x")}
	if got, err := s.Groups(); err == nil || err.Error() != `Groups is "x"` {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStatusOfThisKernel(t *testing.T) {
	s, err := ReadStatus("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	groups, err := s.Groups()
	if err != nil {
		t.Fatal(err)
	}
	if want, err := os.Getgroups(); err != nil || !slices.Equal(groups, want) && len(groups)+len(want) > 0 {
		t.Errorf("groups %v, want %v, %v", groups, want, err)
	}
	if s.PID != os.Getpid() || s.TGID != os.Getpid() || int(s.UID.Effective) != os.Geteuid() || int(s.GID.Real) != os.Getgid() || s.Bounding == 0 || s.Seccomp < 0 || s.NamespaceIDs == 0 {
		t.Errorf("%+v", s)
	}
	if _, err := ReadStatus("/proc/0"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}

// The broker reads a status for each call.
func TestParsingTakesNoMemory(t *testing.T) {
	text := []byte(statusText(someStatus))
	if n := testing.AllocsPerRun(100, func() {
		if _, err := ParseStatus(text); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("a", 1, 2, 3, uint32(4), uint64(5), uint64(6), true, "", 0)
	f.Add("\nUid:\t1\t1\n", 1, 2, 0, uint32(0), uint64(0), uint64(1<<63), false, "\nTgid:\t9\n", 7)
	f.Fuzz(func(t *testing.T, name string, pid, tgid, tracer int, uid uint32, a, b uint64, flag bool, junk string, at int) {
		positive := func(n int) int { return n & 0x7fffffff }
		want := Status{Name: []byte(escaped(name)), State: 'R', PID: positive(pid) | 1, TGID: positive(tgid) | 1, Tracer: positive(tracer), UID: IDs{Effective: uid}, GID: IDs{FS: uid},
			groups: []byte("1 2 "), NamespaceIDs: 1, Inheritable: a, Permitted: b, Effective: a ^ b, Bounding: a & b, Ambient: a | b, NoNewPrivs: flag, Seccomp: 2, Filters: positive(tracer)}
		named := want
		named.Name = []byte(name)
		text := statusText(named)
		if got, err := ParseStatus([]byte(text)); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\nis  %+v, %v\nwant %+v", text, got, err, want)
		}
		// Any other text that is accepted says what was read.
		at = positive(at) % len(text)
		got, err := ParseStatus([]byte(text[:at] + junk + text[at:]))
		if err != nil {
			if !reflect.DeepEqual(got, Status{}) {
				t.Fatalf("%+v with %v", got, err)
			}
			return
		}
		again, err := ParseStatus([]byte(statusText(got)))
		again.Name, got.Name = nil, nil // escaped twice
		if err != nil || !reflect.DeepEqual(again, got) {
			t.Fatalf("%+v comes back as %+v, %v", got, again, err)
		}
	})
}
