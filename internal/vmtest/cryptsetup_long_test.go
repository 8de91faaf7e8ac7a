//go:build vm

package vmtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// volume is a disk in one cipher.
type volume struct {
	cipher string // as luksFormat takes it, with its other options
	binds  string // the binds of cryptsetup to open a key slot; "" is none
	grants []string
}

var plainGrant, aeadGrants = []string{"cryptsetup"}, []string{"cryptsetup", "cryptsetup-aead"}

// volumes are those of docs/will-it-break.md.
var volumes = []volume{
	{"aes-xts-plain64 -s 512", "", nil},
	{"aes-cbc-essiv:sha256 -s 256", "", nil},
	{"aes-ctr-plain64 -s 256", "", nil},
	{"camellia-cbc-plain64 -s 256", "", nil},
	{"serpent-xts-plain64 -s 512", "skcipher:xts(serpent)", plainGrant},
	{"twofish-xts-plain64 -s 512", "skcipher:xts(twofish)", plainGrant},
	{"camellia-xts-plain64 -s 512", "skcipher:xts(camellia)", plainGrant},
	{"cast6-xts-plain64 -s 512", "skcipher:xts(cast6)", plainGrant},
	{"serpent-cbc-plain64 -s 256", "skcipher:cbc(serpent)", plainGrant},
	{"aes-lrw-benbi -s 384", "skcipher:lrw(aes)", plainGrant},
	{"xchacha12,aes-adiantum-plain64 -s 256", "skcipher:adiantum(xchacha12,aes)", plainGrant},
	{"xchacha20,aes-adiantum-plain64 -s 256", "skcipher:adiantum(xchacha20,aes)", plainGrant},
	{"des3_ede-cbc-plain64 -s 192", "skcipher:cbc(des3_ede)", plainGrant},
	{"aes-gcm-random -s 256 --integrity aead --integrity-no-wipe", "aead:gcm(aes)", aeadGrants},
	{"chacha20-random -s 256 --integrity poly1305 --integrity-no-wipe", "aead:rfc7539(chacha20,poly1305)", aeadGrants},
	{"aes-ccm-random -s 280 --integrity aead --integrity-no-wipe", "aead:rfc4309(ccm(aes))", aeadGrants},
}

// makeVolume formats a file; the key is derived in no time. There is no udev to
// wait for.
const makeVolume = `export DM_DISABLE_UDEV=1
rm -f /run/volume; truncate -s 20M /run/volume; printf password >/run/password
cryptsetup -q luksFormat --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 -c %s /run/volume /run/password`

const openVolume = `cryptsetup open --test-passphrase --key-file /run/password /run/volume`

// TestLongCryptsetup formats and opens volumes directly, under builtin:cryptsetup,
// and with AF_ALG closed.
func TestLongCryptsetup(t *testing.T) {
	t.Parallel()
	vm := Boot(t, "6.12", Options{})
	vm.Output(t, "modprobe", "-a", "loop", "dm_crypt", "dm_integrity")
	for _, v := range volumes {
		t.Run(v.cipher, func(t *testing.T) {
			make := fmt.Sprintf(makeVolume, v.cipher)
			direct := vm.Command(t, Command{Args: []string{"sh", "-c", make + "\n" + openVolume}, Timeout: 5 * time.Minute})
			if direct.Exit != 0 {
				t.Fatalf("directly: exit status %d\n%s", direct.Exit, both(direct))
			}
			closed, _, _ := decisions(t, vm, "builtin:cryptsetup", nil, openVolume)
			// The key slot of a volume with AEAD is in another cipher.
			if opens := closed.Exit == 0; opens != (v.binds == "" || len(v.grants) == 2) {
				t.Errorf("closed: exit status %d, though it binds %q\n%s", closed.Exit, v.binds, both(closed))
			}
			r, allowed, denied := decisions(t, vm, "builtin:cryptsetup", v.grants, make+"\n"+openVolume)
			if r.Exit != 0 || v.binds != "" && !slices.Contains(allowed, v.binds) || v.binds == "" && len(allowed)+len(denied) > 0 {
				t.Errorf("under builtin:cryptsetup: exit status %d, allowed %q, denied %q\n%s", r.Exit, allowed, denied, both(r))
			}
			if len(v.grants) == 2 {
				if r, _, _ := decisions(t, vm, "builtin:cryptsetup", plainGrant, make); r.Exit == 0 {
					t.Error("without the grant of cryptsetup-aead it is formatted")
				}
			}
			t.Logf("closed: %d %s", closed.Exit, strings.TrimSpace(string(closed.Stderr)))
		})
	}
}
