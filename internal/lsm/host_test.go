package lsm

import (
	"errors"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/kernel"
)

func TestChoose(t *testing.T) {
	with := func(change func(*Host)) Host {
		h := Host{LSMs: []string{"lockdown", "yama"}, Preemption: kernel.PreemptVoluntary, Lockdown: "none", Types: true, Bpffs: true}
		change(&h)
		return h
	}
	preempted := func(p kernel.Preemption) Host { return with(func(h *Host) { h.Preemption = p }) }
	for _, tt := range []struct {
		name string
		host Host
		want Attachment
		err  string // part of the refusal
	}{
		{"bpf is active", with(func(h *Host) { h.LSMs = append(h.LSMs, "bpf") }), LSM, ""},
		{"bpf is active, preempted", with(func(h *Host) { h.LSMs, h.Preemption = []string{"bpf"}, kernel.PreemptFull }), LSM, ""},
		{"voluntary", preempted(kernel.PreemptVoluntary), FmodRet, ""},
		{"none", preempted(kernel.PreemptNone), FmodRet, ""},
		{"full", preempted(kernel.PreemptFull), "", "boot with lsm=lockdown,yama,bpf; or take the preemption away"},
		{"lazy", preempted(kernel.PreemptLazy), "", "preemption is lazy"},
		{"real-time", preempted(kernel.PreemptRealtime), "", "preemption is realtime"},
		{"not known", preempted(kernel.PreemptUnknown), "", "preemption is unknown"},
		{"integrity", with(func(h *Host) { h.Lockdown = "integrity" }), FmodRet, ""},
		{"confidentiality", with(func(h *Host) { h.Lockdown = "confidentiality" }), "", "lockdown=integrity"},
		{"no types", with(func(h *Host) { h.Types = false }), "", "CONFIG_DEBUG_INFO_BTF"},
		{"no bpffs", with(func(h *Host) { h.Bpffs = false }), "", "mount -t bpf bpf /sys/fs/bpf"},
		{"zero", Host{}, "", "CONFIG_DEBUG_INFO_BTF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := tt.host.Choose()
			var host *hosterr.Error
			switch {
			case got != tt.want:
				t.Errorf("%q, %v, want %q", got, err, tt.want)
			case tt.err == "" && err != nil:
				t.Error(err)
			case tt.err != "" && (!errors.As(err, &host) || !strings.Contains(err.Error(), tt.err)):
				t.Errorf("%v, want %q", err, tt.err)
			}
		})
	}
}
