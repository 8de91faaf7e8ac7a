package policy

import (
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/testing/fields"
)

// another returns a value that may stand where s does.
func another(s string) string {
	words := map[string]string{
		"EPERM": "EIO", "ENOENT": "EACCES", "AF_RXRPC": "AF_KEY", "AF_NETLINK": "AF_RDS", "CAP_NET_ADMIN": "CAP_KILL",
		"0": "7", "1000": "1001", "harden": "lsm", "docker": "crio", "podman": "containerd", "broker": "", "lsm": "",
		"true": "false", "hash": "rng", "skcipher": "aead", "rng": "hash", "*": "stdrng",
		"page-cache": "unused", "NETLINK_XFRM": "NETLINK_AUDIT", "AF_CAN": "AF_BLUETOOTH", "1234": "1235", "SOCK_RAW": "SOCK_DGRAM",
		"SOCK_DGRAM": "SOCK_STREAM", "SOL_TCP": "SOL_PACKET", "TCP_ULP": "TCP_REPAIR", "6": "7", "31": "32",
	}
	if word, ok := words[s]; ok {
		return word
	}
	if strings.HasSuffix(s, ".service") || strings.HasSuffix(s, ")") {
		return "x" + s
	}
	if strings.Contains(s, digest) {
		return strings.Replace(s, digest, digestB, 1)
	}
	return s + "x"
}

// Each field of a policy is printed, and read again.
func TestFieldsArePrinted(t *testing.T) {
	p, _, err := Parse("p", []byte(everything))
	if err != nil {
		t.Fatal(err)
	}
	exempt := map[string]string{
		"File":                   "it is where the policy stands",
		".Pos":                   "it is where an item stands",
		"Deny.Families[].Number": "it goes with the name",
	}
	needed := map[string]string{
		"Rules[].Anyone":                 "the rule names nobody without it",
		"Deny.Sockets[].Family":          "the protocol goes with it",
		"Rules[].Sockets[].Family":       "the protocol goes with it",
		"Deny.SocketOptions[].Level":     "the option goes with it",
		"Rules[].SocketOptions[].Level":  "the option goes with it",
		"Containers.Grants[].Socketcall": "the grant gives nothing without it",
	}
	fields.Each(t, *p, another, exempt, func(t *testing.T, path string, changed Policy) {
		text := string(Format(&changed))
		if text == string(Format(p)) {
			t.Fatalf("another %s prints the same", path)
		}
		again, _, err := Parse("again", []byte(text))
		if err != nil && needed[path] != "" {
			return
		}
		if err != nil {
			t.Fatalf("%v\nin\n%s", err, text)
		}
		if got := string(Format(again)); got != text {
			t.Errorf("printed\n%s\nand read as\n%s", text, got)
		}
	})
}
