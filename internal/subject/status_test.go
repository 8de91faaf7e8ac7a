package subject

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// statusText prints as fs/proc/array.c does, the name of the thread escaped.
func statusText(name string, st status) string {
	name = strings.NewReplacer("\n", `\n`, `\`, `\\`).Replace(name)
	flag := 0
	if st.noNewPrivs {
		flag = 1
	}
	return fmt.Sprintf("Name:\t%s\nUmask:\t0022\nState:\tS (sleeping)\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t1\nTracerPid:\t%d\n"+
		"Uid:\t0\t%d\t1\t2\nGid:\t0\t0\t0\t0\nFDSize:\t64\nGroups:\t0 1 \nNStgid:\t1\nThreads:\t1\nSigQ:\t0/5\n"+
		"CapInh:\t%016x\nCapPrm:\t%016x\nCapEff:\t%016x\nCapBnd:\t%016x\nCapAmb:\t%016x\nNoNewPrivs:\t%d\nSeccomp:\t0\n",
		name, st.tgid, st.pid, st.tracer, st.uid, st.inh, st.prm, st.eff, st.bnd, st.amb, flag)
}

var someStatus = status{pid: 12, tgid: 11, tracer: 7, uid: 4294967295, inh: 1, prm: 2, eff: 1 << 63, bnd: 0x1ffffffffff, amb: 5, noNewPrivs: true}

func TestParseStatus(t *testing.T) {
	text := statusText("a", someStatus)
	for _, tt := range []struct{ old, new, err string }{
		{"", "", ""},
		{"Name:\ta", "Name:\ta\\nTgid:\t1\\nUid:\t1", ""},
		{"Tgid:\t11", "Tgid:\t", "Tgid is empty"},
		{"Tgid:\t11", "Tgid:\t0", "thread 12 of process 0"},
		{"Tgid:\t11", "Tgid:\t-1", `Tgid is "-1"`},
		{"Tgid:\t11", "Tgid:\t2147483648", `Tgid is "2147483648"`},
		{"\nPid:", "\nPit:", "no Pid"},
		{"\t4294967295\t1", "\t4294967296\t1", `Uid is "4294967296"`},
		{"\t4294967295\t1\t2", "", "Uid is empty"},
		{"\t4294967295\t1", "\t99999999999999999999\t1", `Uid is "99999999999999999999"`},
		{"CapEff:\t8", "CapEff:\t18", `CapEff is "18000000000000000"`},
		{"CapEff:\t8", "CapEff:\tg", `CapEff is "g000000000000000"`},
		{"CapEff:\t8", "CapEff:\tA", `CapEff is "A000000000000000"`},
		{"NoNewPrivs:\t1", "NoNewPrivs:\t2", `NoNewPrivs is "2"`},
		{"NoNewPrivs:\t1\nSeccomp:\t0\n", "NoNewPrivs:\t1", "NoNewPrivs is cut off"},
		{"NoNewPrivs", "NoOldPrivs", "no NoNewPrivs"},
		{"CapInh", "CapXxx", "no CapInh"},
	} {
		if !strings.Contains(text, tt.old) {
			t.Fatalf("no %q to replace", tt.old)
		}
		st, err := parseStatus([]byte(strings.Replace(text, tt.old, tt.new, 1)))
		want := someStatus
		got := ""
		if err != nil {
			want, got = status{}, err.Error()
		}
		if got != tt.err || st != want {
			t.Errorf("%q for %q: %+v, %q\nwant %q", tt.new, tt.old, st, got, tt.err)
		}
	}
}

func TestStatusOfThisKernel(t *testing.T) {
	text, err := os.ReadFile("/proc/self/status")
	must(t, err)
	st, err := parseStatus(text)
	must(t, err)
	if st.pid != os.Getpid() || st.tgid != os.Getpid() || int(st.uid) != os.Geteuid() || st.bnd == 0 {
		t.Errorf("%+v", st)
	}
}

// A thread calls itself what it likes.
func TestNameOfThread(t *testing.T) {
	c := start(t, command("name", program, "x\nUid:\t1\t7"))
	s := newReader(t, Options{}).Look(c.tid())
	if s.UID == nil || *s.UID != uint32(os.Geteuid()) || s.PID != c.pid {
		t.Errorf("%+v", s)
	}
}

func FuzzStatus(f *testing.F) {
	f.Add("a", 1, 2, 3, uint32(4), uint64(5), uint64(6), true, "", 0)
	f.Add("\nUid:\t1\t1\n", 1, 2, 0, uint32(0), uint64(0), uint64(1<<63), false, "\nTgid:\t9\n", 7)
	f.Fuzz(func(t *testing.T, name string, pid, tgid, tracer int, uid uint32, a, b uint64, flag bool, junk string, at int) {
		positive := func(n int) int { return n & 0x7fffffff }
		want := status{pid: positive(pid) | 1, tgid: positive(tgid) | 1, tracer: positive(tracer), uid: uid,
			inh: a, prm: b, eff: a ^ b, bnd: a & b, amb: a | b, noNewPrivs: flag}
		text := statusText(name, want)
		if got, err := parseStatus([]byte(text)); err != nil || got != want {
			t.Fatalf("%q\nis  %+v, %v\nwant %+v", text, got, err, want)
		}
		// What is accepted of anything else says what it was read as.
		at = positive(at) % len(text)
		got, err := parseStatus([]byte(text[:at] + junk + text[at:]))
		if err != nil {
			if got != (status{}) {
				t.Fatalf("%+v with %v", got, err)
			}
			return
		}
		if again, err := parseStatus([]byte(statusText(name, got))); err != nil || again != got {
			t.Fatalf("%+v comes back as %+v, %v", got, again, err)
		}
	})
}
