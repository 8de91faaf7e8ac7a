package vouch

import (
	"maps"
	"slices"
	"strings"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// imageKeys begins the keys under which platforms copy parts of an image's
// configuration into the annotations of the spec.
const imageKeys = "org.opencontainers.image."

// split divides a map in which a platform merged the image's values with the
// user's. Under a key that the image has, the value may be the image's.
func split(all, image map[string]string) (vouched, claimed map[string]string) {
	vouched, claimed = map[string]string{}, maps.Clone(image)
	for k, v := range all {
		if _, ofImage := image[k]; !ofImage {
			vouched[k] = v
		}
	}
	return vouched, claimed
}

// splitAnnotations counts the spec's annotations as the platform's, except for
// those that come from the image.
func splitAnnotations(c *plan.Container, spec *profile.Config, ofImage func(key string) bool) {
	c.Vouched.Annotations, c.Claimed.Annotations = map[string]string{}, map[string]string{}
	for k, v := range spec.Annotations {
		if strings.HasPrefix(k, imageKeys) || ofImage(k) {
			c.Claimed.Annotations[k] = v
		} else {
			c.Vouched.Annotations[k] = v
		}
	}
}

// A container may ask for rules under askKeys and askVariables.
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
func asks(spec *profile.Config, c *plan.Container) []string {
	names := map[string]bool{}
	add := func(list []string) {
		for _, name := range list {
			if len(names) < maxAsks && policy.IsRuleName(name) {
				names[name] = true
			}
		}
	}
	for _, said := range []map[string]string{spec.Annotations, c.Vouched.Labels, c.Claimed.Labels} {
		for _, key := range askKeys {
			add(words(said[key]))
		}
	}
	for _, variable := range spec.Env {
		if key, value, _ := strings.Cut(variable, "="); slices.Contains(askVariables, key) {
			add(words(value))
		}
	}
	if m, err := plan.ParseMetadata(spec.ListenerMetadata()); err == nil {
		add(m.Grants)
	}
	return slices.Sorted(maps.Keys(names))
}

// words splits at commas and white space.
func words(s string) []string {
	return strings.FieldsFunc(s[:min(len(s), maxAskText)], func(r rune) bool { return r == ',' || r == ' ' || r == '\t' || r == '\n' })
}
