package oci

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMemo: what is kept is what was found, for this question, by this build.
func TestMemo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "proofs")
	open := func(build string) *Memo {
		m, err := OpenMemo(dir, build)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		return m
	}
	o := options(t, "refuse")
	fresh, err := o.harden([]byte(openSpec), web)
	if err != nil {
		t.Fatal(err)
	}
	m := open("one")
	o.Memo = m
	for range 2 {
		out, err := o.harden([]byte(openSpec), web)
		if err != nil || string(out.Spec.Text()) != string(fresh.Spec.Text()) {
			t.Fatalf("%v\n%s", err, cmp.Diff(string(fresh.Spec.Text()), string(out.Spec.Text())))
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", "hardened-*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	key := filepath.Base(files[0])
	if _, ok := open("two").Get(key); ok {
		t.Error("another build takes it")
	}
	kept, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	for i := range kept {
		if i > 64 && i%97 != 0 {
			continue
		}
		bad := append([]byte{}, kept...)
		bad[i] ^= 1
		if err := os.WriteFile(files[0], bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Get(key); ok {
			t.Fatalf("a memo with byte %d changed is taken", i)
		}
	}
	if err := os.WriteFile(files[0], kept[:10], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := o.harden([]byte(openSpec), web); err != nil || string(out.Spec.Text()) != string(fresh.Spec.Text()) {
		t.Errorf("with a torn memo: %v", err)
	}
	if _, ok := m.Get("../" + filepath.Base(filepath.Dir(files[0])) + "/" + key); ok {
		t.Error("a key leads out of the memo")
	}
}

func TestMemoRefusesOthers(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMemo(dir, "x"); err == nil {
		t.Error("a directory that all can write to is taken")
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(t.TempDir(), link); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMemo(link, "x"); err == nil {
		t.Error("a link is taken")
	}
}

func TestMemoIsBounded(t *testing.T) {
	m, err := OpenMemo(t.TempDir(), "x")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for i := range 2*maxKept + 10 {
		m.Put(strings.Repeat("k", i%200+1)+string(rune('a'+i/200)), []byte("v"))
	}
	d, err := m.root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if names, err := d.Readdirnames(-1); err != nil || len(names) > maxKept {
		t.Errorf("%d kept, %v", len(names), err)
	}
}
