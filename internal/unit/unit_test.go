package unit

import (
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func readFrom(files map[string]string) func(string) ([]byte, error) {
	return func(p string) ([]byte, error) {
		text, ok := files[p]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: p, Err: fs.ErrNotExist}
		}
		return []byte(text), nil
	}
}

// TestBoxServices compares the same with a manager, for every unit of a
// machine.
func TestOwnFamilies(t *testing.T) {
	for name, tt := range map[string]struct {
		files []string
		want  string
	}{
		"nothing":            {[]string{"[Service]\nExecStart=/bin/true\n"}, "~"},
		"a list":             {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX AF_INET\n"}, "AF_INET AF_UNIX"},
		"two lines":          {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX\nRestrictAddressFamilies=AF_INET\n"}, "AF_INET AF_UNIX"},
		"a second name":      {[]string{"[Service]\nRestrictAddressFamilies=AF_LOCAL AF_ROUTE\n"}, "AF_NETLINK AF_UNIX"},
		"denied":             {[]string{"[Service]\nRestrictAddressFamilies=~AF_PACKET\n"}, "~AF_PACKET"},
		"taken off":          {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX AF_INET\nRestrictAddressFamilies=~AF_INET\n"}, "AF_UNIX"},
		"denied no longer":   {[]string{"[Service]\nRestrictAddressFamilies=~AF_PACKET AF_ALG\nRestrictAddressFamilies=AF_PACKET\n"}, "~AF_ALG"},
		"none":               {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX\nRestrictAddressFamilies=none\n"}, ""},
		"none, and one more": {[]string{"[Service]\nRestrictAddressFamilies=none\nRestrictAddressFamilies=AF_UNIX\n"}, "AF_UNIX"},
		"none, then denied":  {[]string{"[Service]\nRestrictAddressFamilies=none\nRestrictAddressFamilies=~AF_UNIX\n"}, "~AF_UNIX"},
		"reset":              {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX\nRestrictAddressFamilies=\n"}, "~"},
		"all taken off":      {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX\nRestrictAddressFamilies=~AF_UNIX\nRestrictAddressFamilies=~AF_INET\n"}, ""},
		"another section":    {[]string{"[Socket]\nRestrictAddressFamilies=AF_UNIX\n[Service]\n"}, "~"},
		"comments":           {[]string{"[Service]\n# RestrictAddressFamilies=AF_INET\n ; RestrictAddressFamilies=AF_INET\nRestrictAddressFamilies = AF_UNIX \n"}, "AF_UNIX"},
		"continued":          {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX \\\n# why\n  AF_INET\nX=1\n"}, "AF_INET AF_UNIX"},
		"unknown":            {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX bogus\n"}, "AF_UNIX"},
		"drop-ins":           {[]string{"[Service]\nRestrictAddressFamilies=AF_UNIX\n", "[Service]\nRestrictAddressFamilies=AF_INET\n", "[Service]\nRestrictAddressFamilies=~AF_UNIX\n"}, "AF_INET"},
	} {
		files, names := map[string]string{}, []string(nil)
		for i, text := range tt.files {
			p := "/" + string(rune('a'+i))
			files[p], names = text, append(names, p)
		}
		got, err := OwnFamilies("Service", names, readFrom(files))
		if err != nil || got.String() != tt.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, tt.want)
		}
	}
	if _, err := OwnFamilies("Service", []string{"/none"}, readFrom(nil)); err == nil {
		t.Error("a file that is not there sets nothing")
	}
}

func TestMatches(t *testing.T) {
	facts, err := Parse([]byte("Id=a.service\nRestrictAddressFamilies=~\n\nId=b@afalg-policy.service\nRestrictAddressFamilies=~\n\n" +
		"Id=c@1.service\nRestrictAddressFamilies=~\n\nId=gone.service\nLoadState=not-found\nRestrictAddressFamilies=~\n"))
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{
		"a.service": {"a.service"}, "b@.service": {"b@.service"}, "b@x.service": {"b@.service"},
		"c@.service": {"c@1.service"}, "c@2.service": nil, "gone.service": nil, "d.service": nil,
	} {
		if diff := cmp.Diff(want, facts.Matches(name)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if _, known := facts.Of("c@.service"); known {
		t.Error("an instance speaks for its template")
	}
	if s, known := facts.Of("b@x.service"); !known || !s.Families.Unset() {
		t.Error("a template does not speak for its instance")
	}
}

// Settings of an earlier installation are not the unit's own.
func TestWithoutOurs(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a.service": "[Service]\nRestrictAddressFamilies=AF_ALG AF_UNIX\n", "b.conf": "[Service]\nRestrictAddressFamilies=AF_INET\n",
	} {
		if err := writeFile(dir+"/"+name, text); err != nil {
			t.Fatal(err)
		}
	}
	const head = "Id=a.service\nLoadState=loaded\n"
	shown := head + "RestrictAddressFamilies=AF_INET AF_UNIX\nFragmentPath=" + dir + "/a.service\nDropInPaths=" + dir + "/b.conf /etc/systemd/system/a.service.d/" + Closure
	want := strings.Replace(shown, "AF_INET AF_UNIX", "AF_ALG AF_INET AF_UNIX", 1)
	got, err := withoutOurs(shown)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	theirs := strings.Replace(shown, Closure, "override.conf", 1)
	if got, err := withoutOurs(theirs); got != theirs || err != nil {
		t.Errorf("without a file of ours: %q, %v", got, err)
	}
	if got, err := withoutOurs("Transient=yes\n" + shown); got != "" || err != nil {
		t.Errorf("a transient unit: %q, %v", got, err)
	}
	if got, err := withoutOurs(strings.Replace(shown, "a.service\nDrop", "gone\nDrop", 1)); err == nil {
		t.Errorf("a unit whose file is gone: %q", got)
	}
}

// Without a manager nothing is known, and the error says so.
func TestAskNobody(t *testing.T) {
	if out, err := exec.Command("systemctl", "is-system-running").Output(); err == nil || slices.Contains([]string{"degraded\n", "running\n", "starting\n"}, string(out)) {
		if _, err := Ask(t.Context()); err != nil {
			t.Errorf("a manager runs: %v", err)
		}
		return
	}
	if shown, err := Ask(t.Context()); err != ErrNoManager || shown != nil {
		t.Errorf("%q, %v", shown, err)
	}
}

func writeFile(name, text string) error { return os.WriteFile(name, []byte(text), 0o644) }
