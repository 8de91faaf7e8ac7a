package vouch

import (
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/plan"
)

// imageKeys begin the keys under which platforms copy parts of an image's
// configuration into the annotations of the spec.
const imageKeys = "org.opencontainers.image."

// split divides a map in which a platform merged what the image says into what
// the user said. Of a key that the image has, the value may be the image's.
func split(all, image map[string]string) (vouched, claimed map[string]string) {
	vouched, claimed = map[string]string{}, maps.Clone(image)
	for k, v := range all {
		if _, ofImage := image[k]; !ofImage {
			vouched[k] = v
		}
	}
	return vouched, claimed
}

// settleAnnotations counts the spec's annotations as the platform's, but for
// those that come from the image.
func settleAnnotations(c *plan.Container, sp *spec, ofImage func(key string) bool) {
	c.Vouched.Annotations, c.Claimed.Annotations = map[string]string{}, map[string]string{}
	for k, v := range sp.Annotations {
		if strings.HasPrefix(k, imageKeys) || ofImage(k) {
			c.Claimed.Annotations[k] = v
		} else {
			c.Vouched.Annotations[k] = v
		}
	}
}

// askKeys and askVariables are where a container may ask for rules.
var (
	askKeys      = []string{"io.afalg-policy.grant", "io.afalg-policy.grants"}
	askVariables = []string{"AFALG_POLICY_GRANT", "AFALG_POLICY_GRANTS"}
)

const (
	maxAsks    = 64      // that are reported
	maxAskText = 4 << 10 // bytes of one value that are read
)

// asks collects the rules that the container asks for by name, sorted. What
// cannot be a name of a rule is left out, so that it does not disturb a log.
func asks(sp *spec, c *plan.Container) []string {
	names := map[string]bool{}
	add := func(list []string) {
		for _, name := range list {
			if len(names) < maxAsks && plan.IsRuleName(name) {
				names[name] = true
			}
		}
	}
	for _, said := range []map[string]string{sp.Annotations, c.Vouched.Labels, c.Claimed.Labels} {
		for _, key := range askKeys {
			add(words(said[key]))
		}
	}
	for _, variable := range sp.Process.Env {
		if key, value, _ := strings.Cut(variable, "="); slices.Contains(askVariables, key) {
			add(words(value))
		}
	}
	if m, err := plan.ParseMetadata(sp.Linux.Seccomp.ListenerMetadata); err == nil {
		add(m.Grants)
	}
	return slices.Sorted(maps.Keys(names))
}

// words splits at commas and spaces.
func words(s string) []string {
	return strings.FieldsFunc(s[:min(len(s), maxAskText)], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}
