package host

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"slices"
	"testing"

	"github.com/coreos/butane/config/common"
	fcos "github.com/coreos/butane/config/fcos/v1_5"
	openshift "github.com/coreos/butane/config/openshift/v4_14"
	"github.com/coreos/ignition/v2/config/v3_4"
	"github.com/coreos/ignition/v2/config/v3_4/types"
	"github.com/coreos/vcontext/report"
	"github.com/google/go-cmp/cmp"
	"github.com/vincent-petithory/dataurl"
	"go.yaml.in/yaml/v4"
)

// butanes are those of butane's translators that the texts here name. All of them,
// for every version, take seconds to compile.
var butanes = map[string]func([]byte, common.TranslateBytesOptions) ([]byte, report.Report, error){
	"fcos 1.5.0":       fcos.ToIgn3_4Bytes,
	"openshift 4.14.0": openshift.ToConfigBytes,
}

// butaneOutput is what butane --strict makes of a text.
func butaneOutput(t *testing.T, text []byte) ([]byte, error) {
	t.Helper()
	var is struct{ Variant, Version string }
	if err := yaml.Load(text, &is); err != nil {
		t.Fatal(err)
	}
	translate, ok := butanes[is.Variant+" "+is.Version]
	if !ok {
		t.Fatalf("variant %q, version %q: no translator is in the test", is.Variant, is.Version)
	}
	out, report, err := translate(text, common.TranslateBytesOptions{Pretty: true})
	if err == nil && len(report.Entries) > 0 {
		err = errors.New(report.String())
	}
	return out, err
}

// butaneTakes is butaneOutput of a text that butane takes.
func butaneTakes(t *testing.T, text []byte) []byte {
	t.Helper()
	out, err := butaneOutput(t, text)
	if err != nil {
		t.Fatalf("butane --strict: %v\n%s", err, text)
	}
	return out
}

// asIgnition reads a configuration as Ignition does, strictly.
func asIgnition(t *testing.T, text []byte) types.Config {
	t.Helper()
	parsed, report, err := v3_4.Parse(text)
	if err != nil || len(report.Entries) > 0 {
		t.Fatalf("ignition: %v\n%s\n%s", err, report, text)
	}
	return parsed
}

// ignitionFiles are the files of a configuration, decoded as Ignition does.
func ignitionFiles(t *testing.T, c types.Config) map[string]string {
	t.Helper()
	files := map[string]string{}
	for _, f := range c.Storage.Files {
		if *f.Mode != 0o644 || !*f.Overwrite {
			t.Errorf("%s: mode %o, overwrite %t", f.Path, *f.Mode, *f.Overwrite)
		}
		files[f.Path] = string(contents(t, f.Contents))
	}
	return files
}

func contents(t *testing.T, r types.Resource) []byte {
	t.Helper()
	source, err := dataurl.DecodeString(*r.Source)
	if err != nil {
		t.Fatal(err)
	}
	if r.Compression == nil || *r.Compression != "gzip" {
		return source.Data
	}
	unpacked, err := gzip.NewReader(bytes.NewReader(source.Data))
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(unpacked)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// asJSON is an object of YAML as JSON.
func asJSON(t *testing.T, object any) []byte {
	t.Helper()
	text, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Butane takes its form without a warning, and what Ignition then does on a machine
// is what the files do.
func TestFleetButane(t *testing.T) {
	for name, in := range fleetInputs(t) {
		got := asIgnition(t, butaneTakes(t, fleetOutput(t, "butane", in)[0].Data))
		want := asFiles(t, in)
		if d := cmp.Diff(want.Files, ignitionFiles(t, got)); d != "" {
			t.Errorf("%s: -files +Ignition:\n%s", name, d)
		}
		if len(got.KernelArguments.ShouldExist) != 1 || string(got.KernelArguments.ShouldExist[0]) != want.Arguments[0] {
			t.Errorf("%s: kernel arguments %q, want %q", name, got.KernelArguments.ShouldExist, want.Arguments)
		}
	}
}

// A MachineConfig is the one that butane makes for OpenShift of the same settings,
// and Ignition's part of it is one that Ignition takes.
func TestFleetMachineConfig(t *testing.T) {
	for name, in := range fleetInputs(t) {
		ours := machineConfigObjects(t, fleetOutput(t, "machineconfig", in)[0].Data)
		theirs := machineConfigObjects(t, butaneTakes(t, openShiftButane(t, in)))
		if d := cmp.Diff(theirs.rest, ours.rest); d != "" {
			t.Errorf("%s: -butane +ours:\n%s", name, d)
		}
		want := ignitionFiles(t, asIgnition(t, theirs.ignition))
		if d := cmp.Diff(want, ignitionFiles(t, asIgnition(t, ours.ignition))); d != "" {
			t.Errorf("%s: -butane +ours:\n%s", name, d)
		}
		if d := cmp.Diff(asFiles(t, in).Files, want); d != "" {
			t.Errorf("%s: -files +butane:\n%s", name, d)
		}
	}
}

// openShiftButane says the settings in butane's own language for OpenShift 4.14.
func openShiftButane(t *testing.T, in Input) []byte {
	t.Helper()
	want := asFiles(t, in)
	var files []any
	for _, path := range slices.Sorted(maps.Keys(want.Files)) {
		files = append(files, map[string]any{"path": path, "mode": 0o644, "overwrite": true, "contents": map[string]any{"inline": want.Files[path]}})
	}
	return asJSON(t, map[string]any{
		"variant": "openshift", "version": "4.14.0",
		"metadata":  map[string]any{"name": "99-worker-afalg-policy", "labels": map[string]any{"machineconfiguration.openshift.io/role": "worker"}},
		"storage":   map[string]any{"files": files},
		"openshift": map[string]any{"kernel_arguments": want.Arguments},
	})
}

// machineConfigParts are Ignition's part of a MachineConfig, and the whole without
// the contents of files, which butane packs where that is shorter.
type machineConfigParts struct {
	rest     map[string]any
	ignition []byte
}

func machineConfigObjects(t *testing.T, text []byte) machineConfigParts {
	t.Helper()
	var object map[string]any
	if err := yaml.Load(text, &object); err != nil {
		t.Fatal(err)
	}
	in := object["spec"].(map[string]any)["config"].(map[string]any)
	parts := machineConfigParts{rest: object, ignition: asJSON(t, in)}
	for _, f := range in["storage"].(map[string]any)["files"].([]any) {
		delete(f.(map[string]any), "contents")
	}
	return parts
}

// What butane --strict refuses is refused here: the check can fail.
func TestFleetButaneRefuses(t *testing.T) {
	for text, why := range map[string]string{
		"variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: x, mode: 0644}]}\n":               "a relative path",
		"variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /x, mode: 644}]}\n":               "a mode in the wrong base",
		"variant: fcos\nversion: 1.5.0\nstorage: {files: [{path: /x, mode: 0644, owner: root}]}\n": "an unknown key",
	} {
		if _, err := butaneOutput(t, []byte(text)); err == nil {
			t.Errorf("butane takes %s", why)
		}
	}
}
