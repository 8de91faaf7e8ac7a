//go:build vm

package vmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// kcapiVersion is of the library in Debian 12, which the hasher is linked to.
const kcapiVersion = "1.4.0"

// hasher builds libkcapi's hasher from Debian's source, which scripts/install
// fetches: Debian itself does not build it.
func hasher(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	source := filepath.Join(cache, "afalg-policy", "sources", "libkcapi_"+kcapiVersion+".orig.tar.xz")
	if out, err := exec.Command("tar", "-C", dir, "--strip-components=1", "-xf", source).CombinedOutput(); err != nil {
		t.Fatalf("%v: run scripts/install vm\n%s", err, out)
	}
	program := filepath.Join(dir, "kcapi-hasher")
	gcc := exec.Command("gcc", "-O1", "-w", "-D_GNU_SOURCE", "-DHAVE_SECURE_GETENV", `-DCHECK_PREFIX=""`, `-DCHECK_SUFFIX="hmac"`,
		"-DKCAPI_MAJVERSION=1", "-DKCAPI_MINVERSION=4", "-DKCAPI_PATCHLEVEL=0", "-Ilib", "-o", program,
		"apps/kcapi-hasher.c", "apps/app-internal.c", "-l:libkcapi.so.1", "-ldl")
	gcc.Dir = dir
	if out, err := gcc.CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	return program
}

// installHasher does in the machine what libkcapi's Makefile.am does, before
// version 1.5 (hard links, and no kcapi-hasher) or since (symbolic links to
// it). $1 is the program. OpenSSL makes the digests for the self-check.
var installHasher = []struct{ shape, script string }{
	{"hard links", `install "$1" /usr/bin/kcapi-hasher
for n in sha1hmac sha224hmac sha256hmac sha384hmac sha512hmac fipscheck fipshmac; do
	ln /usr/bin/kcapi-hasher /usr/bin/$n
	sum /usr/bin/$n
done
rm /usr/bin/kcapi-hasher`},
	{"links", `rm -f /usr/bin/*hmac /usr/bin/fips* /usr/bin/.*.hmac
install "$1" /usr/bin/kcapi-hasher
for n in sha1hmac sha224hmac sha256hmac sha384hmac sha512hmac fipscheck fipshmac; do
	ln -s kcapi-hasher /usr/bin/$n
done
sum /usr/bin/kcapi-hasher`},
}

// sums writes the digests: of a program by two keys, since fipscheck looks for
// another one than the rest, and of the library. Where all names are one file, that
// of sha512hmac counts.
const sums = `set -e
hmac() { openssl "$1" -r -hmac "$2" "$3" | cut -d' ' -f1; }
sum() {
	case $1 in
	*fips*) hmac sha256 orboDeJITITejsirpADONivirpUkvarP $1 ;;
	*) hmac sha512 FIPS-FTW-RHT2009 $1 ;;
	esac >${1%/*}/.${1##*/}.hmac
}
lib=$(ldd "$1" | awk '/libkcapi/ { print $3 }')
hmac sha256 orboDeJITITejsirpADONivirpUkvarP $lib >${lib%/*}/.libkcapi.so.1.hmac
seq 100000 >/run/file
hmac sha512 FIPS-FTW-RHT2009 /run/file | sed 's/$/  \/run\/file/' >/run/file.512
hmac sha256 orboDeJITITejsirpADONivirpUkvarP /run/file >/run/.file.hmac
`

// formerFIPS is the former builtin:fips, with the rule that made sha512hmac
// fail.
const formerFIPS = `version: 1
name: former
allow:
  - rule: fips-integrity-check
    binaries: [/usr/bin/kcapi-hasher]
    users: [root]
    algorithms: {hash: ["hmac(sha512)"]}
`

// TestLongHasher runs the hasher in both shapes under the shipped policy, with its
// self-check forced as under fips=1.
func TestLongHasher(t *testing.T) {
	t.Parallel()
	program := hasher(t)
	vm := Boot(t, "6.12", Options{})
	vm.WriteFile(t, policyPath, []byte(formerFIPS), 0o644)
	for _, s := range installHasher {
		t.Run(s.shape, func(t *testing.T) {
			vm.Output(t, "sh", "-c", sums+s.script, "sh", program)
			testHasher(t, vm, s.shape)
		})
	}
}

func testHasher(t *testing.T, vm *VM, shape string) {
	for _, test := range []struct {
		command, grant string
		links          bool // works where all names are one program
	}{
		{"sha512hmac /run/file", "fips-integrity-check", true},
		{"sha512hmac -c /run/file.512", "fips-integrity-check", true},
		{"sha256hmac /run/file", "fips-integrity-check", true},
		{"fipscheck /run/file", "fips-integrity-check", false},
		{"fipshmac -S", "fips-integrity-check", true},
		{"sha512hmac -L", "fips-integrity-check", true},
		{"sha1hmac /run/file", "hmaccalc", true},
		{"sha224hmac /run/file", "hmaccalc", true},
		{"sha384hmac /run/file", "hmaccalc", true},
	} {
		for _, force := range []string{"", "KCAPI_HASHER_FORCE_FIPS=1 "} {
			if force != "" && !test.links && shape == "links" {
				continue // of one program fipscheck checks another digest than the rest
			}
			t.Run(force+test.command, func(t *testing.T) {
				direct := vm.Run(t, "sh", "-c", force+test.command)
				if direct.Exit != 0 {
					t.Fatalf("directly: exit status %d\n%s", direct.Exit, both(direct))
				}
				if r := brokered(t, vm, "builtin:fips", test.grant, force+test.command); r.Exit != 0 || string(r.Stdout) != string(direct.Stdout) {
					t.Errorf("under builtin:fips: exit status %d\n%s", r.Exit, both(r))
				}
			})
		}
	}
	for _, name := range []string{"sha1hmac", "fipshmac"} {
		if r := brokered(t, vm, "builtin:fips", "dracut-fips", name+" -S"); r.Exit == 0 {
			t.Errorf("%s by the rule of dracut's units: %s", name, r.Stdout)
		}
	}
	r := brokered(t, vm, policyPath, "fips-integrity-check", "KCAPI_HASHER_FORCE_FIPS=1 sha512hmac /run/file")
	said := "Allocation of hmac(sha512) cipher failed (-97)"
	if shape == "links" {
		said = "Integrity check of "
	}
	if r.Exit == 0 || !strings.Contains(both(r), said) {
		t.Errorf("under the policy as it was: exit status %d\n%s", r.Exit, both(r))
	}
	t.Log(fmt.Sprint(shape, ": ", strings.TrimSpace(both(r))))
}
