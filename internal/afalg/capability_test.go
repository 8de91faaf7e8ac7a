package afalg

import (
	"slices"
	"testing"
)

func TestCapabilities(t *testing.T) {
	all := Capabilities()
	if len(all) != 41 || slices.Contains(all, "") {
		t.Errorf("%d capabilities, want 41: %q", len(all), all)
	}
	for name, want := range map[string]int{
		"CAP_CHOWN": 0, "CAP_NET_ADMIN": 12, "CAP_SYS_PTRACE": 19, "CAP_SYS_ADMIN": 21,
		"CAP_SETFCAP": 31, "CAP_MAC_OVERRIDE": 32, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40,
	} {
		if got := slices.Index(all, name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}
