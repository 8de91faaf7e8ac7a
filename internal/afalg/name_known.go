package afalg

import (
	"slices"
	"strings"
	"sync"
)

// The names below are those of the kernel's own algorithms that can be bound
// by AF_ALG (crypto/testmgr.c, and the users of AF_ALG). They serve suggestions
// and completion only: a name that is missing here is as legal as any other.
var (
	knownDigests = strings.Fields(`md4 md5 sha1 sha224 sha256 sha384 sha512
		sha3-224 sha3-256 sha3-384 sha3-512 sm3 rmd160 streebog256 streebog512 wp256 wp384 wp512`)
	knownHashes = strings.Fields(`blake2b-160 blake2b-256 blake2b-384 blake2b-512 crc32 crc32c crc64-nvme
		crc64-rocksoft crct10dif ghash michael_mic poly1305 polyval xxhash64`)
	knownCiphers = strings.Fields(`aes anubis aria blowfish camellia cast5 cast6 des des3_ede fcrypt khazad
		paes seed serpent sm4 tea twofish xeta xtea`)
	knownSkciphers = strings.Fields(`adiantum(xchacha12,aes) adiantum(xchacha20,aes) chacha20 cts(cbc(aes))
		cts(cbc(sm4)) ecb(arc4) ecb(cipher_null) essiv(cbc(aes),sha256) hctr2(aes) rfc3686(ctr(aes))
		rfc3686(ctr(sm4)) salsa20 xchacha12 xchacha20 xctr(aes)`)
	knownAEADs = strings.Fields(`aegis128 ccm(aes) ccm(aria) ccm(sm4) gcm(aes) gcm(aria) gcm(sm4)
		rfc4106(gcm(aes)) rfc4309(ccm(aes)) rfc4543(gcm(aes))
		rfc7539(chacha20,poly1305) rfc7539esp(chacha20,poly1305)`)
	knownRNGs = strings.Fields(`ansi_cprng jitterentropy_rng stdrng`)
)

// WellKnown lists the well known names of a type, sorted; none for a type that
// the kernel does not have.
func WellKnown(t Type) []string { return slices.Clone(wellKnown()[t]) }

var wellKnown = sync.OnceValue(func() map[Type][]string {
	shas := []string{"sha1", "sha256", "sha384", "sha512"}
	prediction := []string{"nopr", "pr"}
	known := map[Type][]string{
		AEAD: slices.Concat(knownAEADs, combine("?(hmac(?),?)",
			[]string{"authenc", "authencesn"},
			[]string{"md5", "sha1", "sha224", "sha256", "sha384", "sha512"},
			[]string{"cbc(aes)", "cbc(des)", "cbc(des3_ede)", "ctr(aes)", "ecb(cipher_null)", "rfc3686(ctr(aes))"})),
		Hash: slices.Concat(knownDigests, knownHashes,
			combine("hmac(?)", knownDigests),
			combine("?(?)", []string{"cmac", "xcbc"}, []string{"aes", "camellia", "des3_ede", "sm4"})),
		RNG: slices.Concat(knownRNGs,
			combine("drbg_?_?", prediction, shas),
			combine("drbg_?_hmac_?", prediction, shas),
			combine("drbg_?_ctr_?", prediction, []string{"aes128", "aes192", "aes256"})),
		Skcipher: slices.Concat(knownSkciphers,
			combine("?(?)", []string{"cbc", "ctr", "ecb", "lrw", "pcbc", "xts"}, knownCiphers)),
	}
	for _, names := range known {
		slices.Sort(names)
	}
	return known
})

// combine replaces the question marks of a pattern, in order, by every
// combination of the words.
func combine(pattern string, words ...[]string) []string {
	all := []string{pattern}
	for _, choice := range words {
		var next []string
		for _, p := range all {
			for _, w := range choice {
				next = append(next, strings.Replace(p, "?", w, 1))
			}
		}
		all = next
	}
	return all
}
