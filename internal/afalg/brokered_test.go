package afalg

import (
	"slices"
	"testing"
)

// The numbers are those of include/uapi/linux/net.h, and the calls that make a
// socket those of the routes.
func TestBrokeredCalls(t *testing.T) {
	want := map[string]uint64{"socket": 1, "bind": 2, "accept": 5, "socketpair": 8, "setsockopt": 14, "accept4": 18}
	arguments := map[string]int{"socket": 3, "bind": 3, "accept": 3, "socketpair": 4, "setsockopt": 5, "accept4": 4}
	i386, _ := ABIOf("SCMP_ARCH_X86")
	var made []uint64
	for _, c := range BrokeredCalls() {
		if c.Socketcall != want[c.Name] || c.Args != arguments[c.Name] {
			t.Errorf("%s is call %d of socketcall with %d arguments", c.Name, c.Socketcall, c.Args)
		}
		delete(want, c.Name)
		if _, known := i386.Number(c.Name); !known {
			t.Errorf("%s is a call of no table", c.Name)
		}
		if c.Makes {
			made = append(made, c.Socketcall)
			if c.Arg != 0 || c.Value != Family {
				t.Errorf("%s is told by argument %d, %d", c.Name, c.Arg, c.Value)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not brokered: %v", want)
	}
	var routes []uint64
	for _, c := range i386.Calls(Family) {
		if c.Name == "socketcall" {
			routes = append(routes, uint64(*c.Arg0))
		}
	}
	if !slices.Equal(made, routes) {
		t.Errorf("sockets are made by calls %v of socketcall, and the routes are %v", made, routes)
	}
}

func TestNumber(t *testing.T) {
	x32, _ := ABIOf("SCMP_ARCH_X32")
	for call, want := range map[string]uint32{"socket": x32.Bit | 41, "socketcall": 0, "accept4": x32.Bit | 288} {
		if nr, known := x32.Number(call); nr != want || !known {
			t.Errorf("%s on x32: %#x, %v", call, nr, known)
		}
	}
	if nr, known := x32.Number("read"); nr != 0 || known {
		t.Errorf("read: %d, %v", nr, known)
	}
}
