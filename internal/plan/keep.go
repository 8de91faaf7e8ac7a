package plan

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Store keeps the last good state of policies, one file each, for when the
// policy itself cannot be read any more. Its content is in force then, so
// nobody but root may write there; the caller sees to that.
type Store struct {
	Dir string // absolute
	// Read returns the text of a file that nobody else can have written.
	Read func(path string) ([]byte, error)
}

const (
	keptComment = "# The last good state of "
	keptDigest  = "# digest "
)

// path is the file for a policy.
func (s Store) path(name string) string {
	return filepath.Join(s.Dir, strings.ReplaceAll(strings.TrimPrefix(name, "/"), "/", "%")+".kept")
}

// Keep keeps a plan as the last good state of the policy of that name. It
// writes nothing if the plan is kept already.
func (s Store) Keep(name string, p *Plan) error {
	at := s.path(name)
	head := []byte(keptComment + name + "\n" + keptDigest + p.Digest + "\n")
	text := append(head, policy.Format(p.policy())...)
	if old, err := s.Read(at); err == nil && bytes.Equal(old, text) {
		return nil
	}
	if _, err := read(at, text); err != nil {
		return fmt.Errorf("keep the policy: %w", err)
	}
	return renameio.WriteFile(at, text, 0o600)
}

// Kept returns the kept state of a policy. It is an error if there is none, or
// if its meaning has changed.
func (s Store) Kept(name string) (*Plan, error) {
	at := s.path(name)
	text, err := s.Read(at)
	if err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(text, []byte(keptComment+name+"\n")) {
		return nil, errors.New("it is about another policy")
	}
	return read(at, text)
}

// read reads a kept policy, and compares its digest with the one that it bears.
func read(at string, text []byte) (*Plan, error) {
	p, _, err := Load(at, func(string) ([]byte, error) { return text, nil })
	if err != nil {
		return nil, err
	}
	if _, rest, _ := strings.Cut(string(text), "\n"); !strings.HasPrefix(rest, keptDigest+p.Digest+"\n") {
		return nil, errors.New("its digest is not that of its content")
	}
	return p, nil
}

// policy is the plan as one file without includes.
func (p *Plan) policy() *policy.Policy {
	return &policy.Policy{
		Name: p.Name,
		Deny: policy.Deny{
			SocketErrno: p.SocketErrno.Name, BindErrno: p.BindErrno.Name, Families: p.Families, Sockets: p.Sockets,
			SocketOptions: p.SocketOptions, UserNamespaces: p.UserNamespaces, ZeroCopy: p.ZeroCopy,
		},
		Rules:      p.Rules,
		Containers: policy.Containers{Unconfined: string(p.Unconfined), Grants: p.Grants},
		ExpectOpen: p.ExpectOpen,
	}
}
