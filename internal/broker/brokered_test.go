package broker

import (
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
)

// Each call that a profile leaves to a broker is answered, by its own number on
// each ABI that has one and through socketcall, and no other is.
func TestBrokeredCallsAreAnswered(t *testing.T) {
	ops := map[op]bool{opSocketcall: true}
	for _, c := range afalg.BrokeredCalls() {
		in := socketcalls[c.Socketcall]
		if in.op <= opNone || in.op.String() != c.Name || in.args != c.Args || uint64(in.args) <= uint64(c.Arg) {
			t.Errorf("%s, call %d of socketcall, is %+v", c.Name, c.Socketcall, in)
		}
		ops[in.op] = true
		for _, abi := range afalg.ABIs() {
			nr, _ := abi.Number(c.Name)
			e, answered := entries[number{abi.Audit, nr}]
			if want := nr != 0 && c.Name != "socketpair"; answered != want || want && (e.op != in.op || e.abi.Name != abi.Name) {
				t.Errorf("%s on %s: answered %v as %s", c.Name, abi.Name, answered, e.op)
			}
		}
	}
	if len(socketcalls) != len(afalg.BrokeredCalls()) {
		t.Errorf("%d calls of socketcall are answered", len(socketcalls))
	}
	for n, e := range entries {
		if !ops[e.op] {
			t.Errorf("call %d of %#x is answered as %s, and left to no broker", n.nr, n.arch, e.op)
		}
	}
}
