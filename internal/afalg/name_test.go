package afalg

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestParseName(t *testing.T) {
	leaf := func(s string) Name { return Name{Base: s} }
	for _, c := range []struct {
		in   string
		want Name
	}{
		{"sha512", leaf("sha512")},
		{"sha512-generic", leaf("sha512-generic")},
		{"__xts-aes-aesni", leaf("__xts-aes-aesni")},
		{"842", leaf("842")},
		{"hmac(sha512-avx2)", Name{"hmac", []Name{leaf("sha512-avx2")}}},
		{"adiantum(xchacha12,aes)", Name{"adiantum", []Name{leaf("xchacha12"), leaf("aes")}}},
		{"pcrypt(authencesn(hmac(sha256),cbc(aes)))", Name{"pcrypt", []Name{{"authencesn", []Name{
			{"hmac", []Name{leaf("sha256")}}, {"cbc", []Name{leaf("aes")}},
		}}}}},
		{strings.Repeat("a", MaxLongName), leaf(strings.Repeat("a", MaxLongName))},
	} {
		t.Run(c.in, func(t *testing.T) {
			got, err := ParseName(c.in)
			if err != nil {
				t.Fatal(err)
			}
			if fmt.Sprint(got.bases()) != fmt.Sprint(c.want.bases()) || got.String() != c.in || c.want.String() != c.in {
				t.Errorf("got %#v, want %#v", got, c.want)
			}
		})
	}
}

func TestParseNameErrors(t *testing.T) {
	long := strings.Repeat("a", MaxLongName+1)
	params := "x(" + strings.Repeat("a,", maxParams) + "a)"
	for in, want := range map[string]string{
		"":                    `character 1: the name is empty`,
		"(aes)":               `character 1: unexpected '(': a name must stand here`,
		"hmac()":              `character 6: unexpected ')': a name must stand here`,
		"hmac(sha512":         `character 12: the name is cut off: the parameters of "hmac" must end with ")"`,
		"hmac(":               `character 6: the name is cut off: a name must stand here`,
		"hmac(sha512))":       `character 13: unexpected ')': the name ends before it`,
		"hmac(sha512)x":       `character 13: 'x' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"a(b(c)d)":            `character 7: 'd' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"aes,des":             `character 4: unexpected ',': the name ends before it`,
		"a(b,)":               `character 5: unexpected ')': a name must stand here`,
		"hmac( sha512)":       `character 6: ' ' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"sha512\x00evil":      `character 7: '\x00' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"shä":                 `character 3: 'ä' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"sha\xff":             `character 4: '�' is no part of a name: only letters, digits, '-', '_', and '(', ',', ')' around parameters are`,
		"*":                   `character 1: "*" is no part of a name: names are exact, and "*" stands alone, in a policy, for a whole type`,
		"sha*":                `character 4: "*" is no part of a name: names are exact, and "*" stands alone, in a policy, for a whole type`,
		"capi:cbc(aes)-essiv": `character 1: "capi:" belongs to cryptsetup, not to the kernel; write the name that follows it`,
		long:                  `character 104: the name has 104 characters; the kernel takes 103 at most`,
		params:                `character 65: a template takes 31 parameters at most`,
	} {
		t.Run(in, func(t *testing.T) {
			n, err := ParseName(in)
			var e *NameError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, %v", n, err)
			}
			if full := fmt.Sprintf("algorithm name %q: %s", in, want); err.Error() != full {
				t.Errorf("got  %s\nwant %s", err, full)
			}
		})
	}
}

// FuzzParseName shows that the kernel accepts every name that the grammar
// accepts, and no other: kernelTakes is a second version of the parser of
// crypto/algboss.c.
func FuzzParseName(f *testing.F) {
	for _, typ := range Types() {
		for _, n := range WellKnown(typ) {
			f.Add(n)
		}
	}
	f.Add("pcrypt(authencesn(hmac(sha256),cbc(aes)))")
	f.Add("hmac(sha512))x")
	f.Fuzz(func(t *testing.T, s string) {
		n, err := ParseName(s)
		if err == nil && n.String() != s {
			t.Errorf("%q printed as %q", s, n)
		}
		if kernel := kernelTakes(s); (err == nil) != kernel {
			t.Errorf("%q: ParseName says %v, the kernel's grammar %v", s, err, kernel)
		}
	})
}

// kernelTakes scans a name level by level, as the kernel does: the text inside
// nested parentheses is skipped first and looked up as a name of its own later.
func kernelTakes(s string) bool {
	if len(s) > MaxLongName {
		return false
	}
	base := scanWord(s)
	if base == 0 || base == len(s) {
		return base > 0
	}
	if s[base] != '(' {
		return false
	}
	for rest, count := s[base+1:], 1; count <= maxParams; count++ {
		end := scanWord(rest)
		if end < len(rest) && rest[end] == '(' {
			for depth := 0; ; {
				if end++; end >= len(rest) {
					return false
				}
				if rest[end] == '(' {
					depth++
				} else if rest[end] == ')' {
					if depth == 0 {
						break
					}
					depth--
				}
			}
			end++
		}
		if end >= len(rest) || !kernelTakes(rest[:end]) {
			return false
		}
		if rest[end] == ')' {
			return end == len(rest)-1
		}
		if rest[end] != ',' {
			return false
		}
		rest = rest[end+1:]
	}
	return false
}

func scanWord(s string) int {
	i := 0
	for i < len(s) && strings.IndexByte("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_", s[i]) >= 0 {
		i++
	}
	return i
}

func TestParseAlgorithm(t *testing.T) {
	got, err := ParseAlgorithm("hash:hmac(sha512)")
	if want := (Algorithm{Hash, "hmac(sha512)"}); err != nil || got != want {
		t.Errorf("got %v, %v; want %v", got, err, want)
	}
	for in, want := range map[string]string{
		"sha512":      `algorithm "sha512": the type is missing; write TYPE:NAME, such as "hash:sha256"`,
		"digest:sha1": `algorithm "digest:sha1": unknown type "digest"; the types are aead, hash, rng, skcipher`,
		":sha1":       `algorithm ":sha1": unknown type ""; the types are aead, hash, rng, skcipher`,
		"hash:":       `algorithm name "": character 1: the name is empty`,
		"hash:*":      `algorithm name "*": character 1: "*" is no part of a name: names are exact, and "*" stands alone, in a policy, for a whole type`,
	} {
		if a, err := ParseAlgorithm(in); err == nil || err.Error() != want {
			t.Errorf("%q: got %v, %v\nwant %s", in, a, err, want)
		}
	}
}

func TestDriverName(t *testing.T) {
	for name, want := range map[string]string{
		"sha512-generic":               "sha512-generic",
		"hmac(sha512-avx2)":            "sha512-avx2",
		"cryptd(__ecb-aes-aesni)":      "__ecb-aes-aesni",
		"__cbc(aes)":                   "__cbc",
		"p8_aes_cbc":                   "p8_aes_cbc",
		"qat_aes_cbc_hmac_sha256":      "qat_aes_cbc_hmac_sha256",
		"sha3-512-generic":             "sha3-512-generic",
		"blake2b-256-neon":             "blake2b-256-neon",
		"sha3-512":                     "",
		"hmac(sha3-256)":               "",
		"cbc(des3_ede)":                "",
		"drbg_nopr_ctr_aes256":         "",
		"not a name-generic":           "",
		"pcrypt(rfc4106(gcm-aes-ce))":  "gcm-aes-ce",
		"adiantum(xchacha12,aes-ce,x)": "aes-ce",
	} {
		if got, found := DriverName(name); got != want || found != (want != "") {
			t.Errorf("%s: got %q, %v; want %q", name, got, found, want)
		}
	}
}

// Suggestions point at known names: each must parse, be no driver name, and fit
// into the plain structure.
func TestWellKnown(t *testing.T) {
	for _, typ := range Types() {
		names := WellKnown(typ)
		if len(names) == 0 || !slices.IsSorted(names) || len(slices.Compact(slices.Clone(names))) != len(names) {
			t.Errorf("%s: empty, unsorted or with duplicates: %v", typ, names)
		}
		for _, n := range names {
			if _, err := ParseName(n); err != nil || len(n) > MaxName {
				t.Errorf("%s:%s: %v", typ, n, err)
			}
			if part, found := DriverName(n); found {
				t.Errorf("%s:%s: %s taken for a driver", typ, n, part)
			}
		}
	}
	if got := WellKnown("digest"); got != nil {
		t.Errorf("unknown type: got %v", got)
	}
	// The names that Linux 7.3 allows by af_alg_restrict=1 are known.
	for _, s := range strings.Fields(`aead:ccm(aes) hash:sha1 hash:cmac(aes) hash:hmac(md5) hash:hmac(sha512) hash:md4
		skcipher:adiantum(xchacha12,aes) skcipher:hctr2(aes) skcipher:xts(camellia) skcipher:cbc(des3_ede) skcipher:cbc(paes) skcipher:ecb(des)`) {
		a, err := ParseAlgorithm(s)
		if err != nil || !slices.Contains(WellKnown(a.Type), a.Name) {
			t.Errorf("%s is not known (%v)", s, err)
		}
	}
}

func (n Name) String() string {
	if len(n.Params) == 0 {
		return n.Base
	}
	params := make([]string, len(n.Params))
	for i, p := range n.Params {
		params[i] = p.String()
	}
	return n.Base + "(" + strings.Join(params, ",") + ")"
}
