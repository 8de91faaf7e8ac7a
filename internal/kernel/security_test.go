package kernel

import (
	"errors"
	"slices"
	"testing"
)

func TestSecurity(t *testing.T) {
	h := host(t, true, files{
		"sys/kernel/security/lsm":      "lockdown,yama,bpf\n",
		"sys/kernel/security/lockdown": "none [integrity] confidentiality\n",
		"sys/kernel/btf/vmlinux":       "",
	})
	if got := h.LSMs(); !slices.Equal(got, []string{"lockdown", "yama", "bpf"}) || h.Lockdown() != "integrity" || !h.HasTypes() {
		t.Errorf("LSMs %v, lockdown %q, types %v", got, h.Lockdown(), h.HasTypes())
	}
	none := host(t, true, nil)
	if none.LSMs() != nil || none.Lockdown() != "" || none.HasTypes() {
		t.Error("a kernel that says nothing has something")
	}
}

func TestPreemption(t *testing.T) {
	const (
		dynamic = "#1 SMP PREEMPT_DYNAMIC Debian"
		debugfs = "sys/kernel/debug/sched/preempt"
		symbols = "ffff000000000000 T a\nffff000000000010 d preempt_dynamic_mode\n"
	)
	for _, tt := range []struct {
		name, build string
		files       files
		mode        int32 // what peek reads; -2 is an error
		want        Preemption
	}{
		{"no word", "#1 SMP Debian", nil, 2, PreemptVoluntary},
		{"full", "#1 SMP PREEMPT Debian", nil, 0, PreemptFull},
		{"real-time", "#1 SMP PREEMPT_RT Debian", nil, 0, PreemptRealtime},
		{"lazy", "#1 SMP PREEMPT_LAZY Debian", nil, 0, PreemptLazy},
		{"debugfs", dynamic, files{debugfs: "none (voluntary) full\n", "proc/kallsyms": symbols}, 2, PreemptVoluntary},
		{"a word that debugfs does not have", dynamic, files{debugfs: "none (other)\n", "proc/kallsyms": symbols}, 2, PreemptFull},
		{"the variable", dynamic, files{"proc/kallsyms": symbols}, 1, PreemptVoluntary},
		{"a number that is not known", dynamic, files{"proc/kallsyms": symbols}, 4, PreemptUnknown},
		{"not set up", dynamic, files{"proc/kallsyms": symbols}, -1, PreemptUnknown},
		{"unreadable", dynamic, files{"proc/kallsyms": symbols}, -2, PreemptUnknown},
		{"hidden addresses", dynamic, files{"proc/kallsyms": "0000000000000000 d preempt_dynamic_mode\n"}, 1, PreemptUnknown},
		{"no symbol", dynamic, files{"proc/kallsyms": "ffff000000000000 T a\n"}, 1, PreemptUnknown},
		{"no /proc", dynamic, nil, 1, PreemptUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			bad := errors.New("bad")
			got, err := host(t, true, tt.files).Preemption(tt.build, func(address uint64) (int32, error) {
				if address != 0xffff000000000010 {
					t.Errorf("asked at %#x", address)
				}
				if tt.mode == -2 {
					return 0, bad
				}
				return tt.mode, nil
			})
			if got != tt.want || (err != nil) != (tt.mode == -2) {
				t.Errorf("%s, %v, want %s", got, err, tt.want)
			}
		})
	}
}
