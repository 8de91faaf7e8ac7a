package plan

import "testing"

// TestExpects shows that an entry holds only for the processes that it names,
// on the host.
func TestExpects(t *testing.T) {
	p := mustLoad(t, "p", `
-- p --
version: 1
name: p
expect-open:
  - {reason: cron, units: [cron.service, getty@.service], binaries: [/usr/sbin/cron]}
  - {reason: ssh, units: [ssh.service]}
`)
	host := mustLoad(t, "p", `
-- p --
version: 1
name: p
expect-open: [{reason: ours, outside-containers: true}]
`)
	for name, tt := range map[string]struct {
		p    *Plan
		seen Seen
		want string
	}{
		"both conditions":       {p, Seen{Unit: "cron.service", Binary: "/usr/sbin/cron"}, "cron"},
		"an instance":           {p, Seen{Unit: "getty@tty1.service", Binary: "/usr/sbin/cron"}, "cron"},
		"one condition":         {p, Seen{Unit: "cron.service", Binary: "/bin/sh"}, ""},
		"no binary":             {p, Seen{Unit: "cron.service"}, ""},
		"a unit":                {p, Seen{Unit: "ssh.service", Binary: "/bin/sh"}, "ssh"},
		"a unit in a container": {p, Seen{Unit: "ssh.service", Contained: true}, ""},
		"nobody":                {p, Seen{}, ""},
		"the host":              {host, Seen{}, "ours"},
		"a container":           {host, Seen{Contained: true}, ""},
		"a policy without":      {&Plan{}, Seen{Unit: "ssh.service"}, ""},
		"no policy":             {nil, Seen{Unit: "ssh.service"}, ""},
	} {
		got := ""
		if e := tt.p.Expects(tt.seen); e != nil {
			got = e.Reason
		}
		if got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
	// Only verify uses it: no decision changes, and the digest shows it.
	open, closed := host, mustLoad(t, "p", "\n-- p --\nversion: 1\nname: p\n")
	r := Request{Algorithm: sha1}
	if Decide(open, r).Allowed || open.Digest == closed.Digest {
		t.Errorf("allowed %v, digests %s and %s", Decide(open, r).Allowed, open.Digest, closed.Digest)
	}
}
