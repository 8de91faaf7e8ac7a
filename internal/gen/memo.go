package gen

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/profile"
	"github.com/afalg-policy/afalg-policy/internal/seccomp"
)

// Memo keeps what was hardened and proved, for programs that run once for each
// container. A key stands for everything that the result depends on, but for
// this program itself: another build needs another memo. Whoever can write to
// a memo decides what counts as proved.
type Memo interface {
	Get(key string) (value []byte, ok bool)
	Put(key string, value []byte)
}

// remembered is a result of Harden.
type remembered struct {
	Profile *specs.LinuxSeccomp `json:"profile"`
	Gaps    []Gap               `json:"gaps,omitempty"`
}

// memoKey names a question about a profile.
func memoKey(question string, p *plan.Plan, base []byte, o SeccompOptions) string {
	text, err := json.Marshal(struct {
		Question, Libseccomp, Policy, Tool string
		Base                               []byte
		Grants, Accept                     []string
		Socketcall                         Socketcall
		Broker                             string
		Host                               profile.Host
	}{question, seccomp.Version(), p.Digest, o.Tool, base, o.Grants, o.Accept, o.Socketcall, o.Broker, o.Host})
	if err != nil { // strings and lists of them always encode
		return ""
	}
	sum := sha256.Sum256(text)
	return question + "-" + hex.EncodeToString(sum[:])
}

// recall finds a result; one that does not read as such was never kept.
func (o SeccompOptions) recall(key string) (r remembered, ok bool) {
	if o.Memo == nil || key == "" {
		return r, false
	}
	data, ok := o.Memo.Get(key)
	if !ok || json.Unmarshal(data, &r) != nil || r.Profile == nil {
		return remembered{}, false
	}
	return r, true
}

func (o SeccompOptions) keep(key string, r remembered) {
	if o.Memo == nil || key == "" {
		return
	}
	if data, err := json.Marshal(r); err == nil {
		o.Memo.Put(key, data)
	}
}

// Prove compiles a profile as each runtime does on o.Host, and asks the
// programs every route: all must be closed, or with o.Broker left to the
// broker, whose further demands are then proved as well. o.Socketcall is not
// asked: a program may close socketcall, or leave it to the broker.
func Prove(p *plan.Plan, seccompProfile *specs.LinuxSeccomp, o SeccompOptions) error {
	src, err := json.Marshal(seccompProfile)
	if err != nil {
		return fmt.Errorf("reading the profile: %w", err)
	}
	key := memoKey("proved", p, src, o)
	if _, ok := o.recall(key); ok {
		return nil
	}
	parsed, err := profile.Parse(src)
	if err != nil {
		return err
	}
	c := closing{families: closedFamilies(p), socketcall: SocketcallDeny, broker: o.Broker != ""}
	if c.broker {
		c.socketcall = SocketcallBroker
	}
	if err := prove(parsed, o.Host, c); err != nil {
		return err
	}
	if c.broker {
		if err := c.proveAnswered(parsed, o.Host); err != nil {
			return err
		}
	}
	o.keep(key, remembered{Profile: seccompProfile})
	return nil
}
