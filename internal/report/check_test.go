package report

import (
	"reflect"
	"strings"
	"testing"

	"github.com/afalg-policy/afalg-policy/internal/policy"
)

// Check shows each thing that a grant says.
func TestGrantTextIsWhole(t *testing.T) {
	g := policy.Grant{
		Rules: []policy.GrantedRule{{Name: "the-rule"}}, Socketcall: policy.SocketcallBroker, DecidedBy: policy.DecidedByLSM, Platforms: []string{"the-platform"}, Builds: true, Names: []string{"the-name"},
		Images: []string{"the-image"}, Namespaces: []string{"the-namespace"}, Pods: []string{"the-pod"}, Labels: map[string]string{"label": "of-it"}, Annotations: map[string]string{"note": "of-it"},
	}
	whole := grantText(g)
	for i := range reflect.TypeFor[policy.Grant]().NumField() {
		name := reflect.TypeFor[policy.Grant]().Field(i).Name
		if name == "Pos" {
			continue
		}
		less := g
		field := reflect.ValueOf(&less).Elem().Field(i)
		if field.IsZero() {
			t.Errorf("the sample has no %s", name)
		}
		field.SetZero()
		if text := grantText(less); text == whole || strings.Contains(whole, "%!") {
			t.Errorf("without %s it says the same: %s", name, text)
		}
	}
}
