package afalg

import (
	"encoding/binary"
	"fmt"
	"strings"
	"testing"
)

// address lays out a sockaddr_alg by hand; name is everything from byte 24 on.
func address(family uint16, typ, name string) []byte {
	b := make([]byte, sockaddrName+len(name))
	binary.NativeEndian.PutUint16(b, family)
	copy(b[2:16], typ)
	copy(b[24:], name)
	return b
}

func padded(name string, size int) string { return name + strings.Repeat("\x00", size-len(name)) }

func TestParseSockaddr(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want Algorithm
	}{
		{"usual", address(38, "hash", padded("hmac(sha512)", 64)), Algorithm{Hash, "hmac(sha512)"}},
		{"family 0", address(0, "hash", padded("sha1", 64)), Algorithm{Hash, "sha1"}},
		{"family 2", address(2, "hash", padded("sha1", 64)), Algorithm{Hash, "sha1"}},
		{"31 bytes cut the name", address(38, "hash", "sha512X"), Algorithm{Hash, "sha512"}},
		{"31 bytes, last one zero", address(38, "hash", "sha512\x00"), Algorithm{Hash, "sha512"}},
		{"32 bytes cut less", address(38, "hash", "sha512XY"), Algorithm{Hash, "sha512X"}},
		{"25 bytes leave no name", address(38, "hash", "s"), Algorithm{Hash, ""}},
		{"bytes after the NUL", address(38, "hash\x00junk", padded("sha1\x00authencesn", 64)), Algorithm{Hash, "sha1"}},
		{"type of 13", address(38, "abcdefghijklm", padded("x", 64)), Algorithm{"abcdefghijklm", "x"}},
		{"type of 14 is cut", address(38, "skcipherXXXXXY", padded("x", 64)), Algorithm{"skcipherXXXXX", "x"}},
		{"name of 64 is cut", address(38, "rng", strings.Repeat("a", 64)), Algorithm{RNG, strings.Repeat("a", 63)}},
		{"long form", address(38, "aead", strings.Repeat("a", 104)), Algorithm{AEAD, strings.Repeat("a", 103)}},
		{"bytes that are no text", address(38, "\xff\n", padded("*\xfe", 64)), Algorithm{"\xff\n", "*\xfe"}},
		{"all zero", make([]byte, 88), Algorithm{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := ParseSockaddr(c.in)
			if err != nil || got != c.want {
				t.Errorf("got %q, %v; want %q", got, err, c.want)
			}
		})
	}
	for size, want := range map[int]string{
		0:   "address of 0 bytes: a sockaddr_alg has 25 to 128",
		24:  "address of 24 bytes: a sockaddr_alg has 25 to 128",
		129: "address of 129 bytes: a sockaddr_alg has 25 to 128",
	} {
		if got, err := ParseSockaddr(make([]byte, size)); err == nil || err.Error() != want {
			t.Errorf("%d bytes: got %v, %v; want %s", size, got, err, want)
		}
	}
}

func TestSockaddr(t *testing.T) {
	for _, c := range []struct {
		alg  Algorithm
		size int
	}{
		{Algorithm{Hash, "hmac(sha512)"}, 88},
		{Algorithm{Hash, strings.Repeat("a", 63)}, 88},
		{Algorithm{Hash, strings.Repeat("a", 64)}, 89},
		{Algorithm{Hash, strings.Repeat("a", 103)}, 128},
	} {
		b, err := sockaddr(c.alg)
		if err != nil || len(b) != c.size {
			t.Fatalf("%s: %d bytes, %v; want %d", c.alg, len(b), err, c.size)
		}
		if want := address(Family, string(c.alg.Type), padded(c.alg.Name, c.size-24)); string(b) != string(want) {
			t.Errorf("%s: got  %x\nwant %x", c.alg, b, want)
		}
	}
	for want, alg := range map[string]Algorithm{
		`address of "abcdefghijklmn:x": the type has 14 characters; 13 fit`:                        {"abcdefghijklmn", "x"},
		`address of "hash:` + strings.Repeat("a", 104) + `": the name has 104 characters; 103 fit`: {Hash, strings.Repeat("a", 104)},
		`address of "hash:a\x00b": a NUL would end it early`:                                       {Hash, "a\x00b"},
		`address of "a\x00b:x": a NUL would end it early`:                                          {"a\x00b", "x"},
	} {
		if b, err := sockaddr(alg); err == nil || err.Error() != want {
			t.Errorf("got %x, %v\nwant %s", b, err, want)
		}
	}
}

// A parsed address can be written, and reads the same again.
func FuzzParseSockaddr(f *testing.F) {
	f.Add(address(38, "hash", "sha512X"))
	f.Add(address(0, "skcipherXXXXXY", strings.Repeat("a", 104)))
	f.Fuzz(func(t *testing.T, b []byte) {
		given := string(b)
		alg, err := ParseSockaddr(b)
		if err != nil {
			return
		}
		if string(b) != given {
			t.Fatal("the input was changed")
		}
		written, err := sockaddr(alg)
		if err != nil {
			t.Fatalf("%q cannot be written: %v", alg, err)
		}
		if again, err := ParseSockaddr(written); err != nil || again != alg {
			t.Fatalf("got %q, %v; want %q", again, err, alg)
		}
	})
}

// sockaddr writes the address that binds a, in the byte order of this machine:
// SockaddrSize bytes, or more for a name above MaxName. It refuses what the
// kernel would read back as something else.
func sockaddr(a Algorithm) ([]byte, error) {
	switch {
	case len(a.Type) > maxType:
		return nil, fmt.Errorf("address of %q: the type has %d characters; %d fit", a, len(a.Type), maxType)
	case len(a.Name) > MaxLongName:
		return nil, fmt.Errorf("address of %q: the name has %d characters; %d fit", a, len(a.Name), MaxLongName)
	case strings.ContainsRune(string(a.Type)+a.Name, 0):
		return nil, fmt.Errorf("address of %q: a NUL would end it early", a)
	}
	b := make([]byte, max(SockaddrSize, sockaddrName+len(a.Name)+1))
	binary.NativeEndian.PutUint16(b, Family)
	copy(b[sockaddrType:], a.Type)
	copy(b[sockaddrName:], a.Name)
	return b, nil
}

// What begins with an algorithm's bytes is an address of it, whatever follows.
func TestAddressStart(t *testing.T) {
	for _, a := range []Algorithm{{Hash, "sha512"}, {Skcipher, "xts(aes)"}, {AEAD, strings.Repeat("a", MaxLongName-8)}} {
		start := AddressStart(a)
		for _, rest := range []string{"", "x", "x(y)\x00"} {
			if got, err := ParseSockaddr([]byte(start + rest)); err != nil || got != a {
				t.Errorf("%q: %v, %v; want %v", start+rest, got, err, a)
			}
		}
		if any := AddressStart(Algorithm{a.Type, AnyName}); !strings.HasPrefix(start, any) || len(any) >= sockaddrName {
			t.Errorf("%q does not begin with %q", start, any)
		}
	}
}
