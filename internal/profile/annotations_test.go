package profile

import (
	"strings"
	"testing"
)

func TestFilterAnnotation(t *testing.T) {
	for _, tt := range []struct{ annotations, want string }{
		{`{"run.oci.seccomp_bpf_data": "BgAAAAAA/38="}`, `1:18: the annotation "run.oci.seccomp_bpf_data"`},
		{`{"a": "b", "run.oci.seccomp.receiver": "/run/other.sock"}`, `1:28: the annotation "run.oci.seccomp.receiver"`},
		{`{"run.oci.seccomp.plugins": "plugin.so"}`, `the annotation "run.oci.seccomp.plugins"`},
		{`{"run.oci.seccomp.later": ""}`, `the annotation "run.oci.seccomp.later"`},
		{`{"run\u002eoci.seccomp_bpf_data": ""}`, `the annotation "run.oci.seccomp_bpf_data"`},
		{`["run.oci.seccomp_bpf_data"]`, "1:17: annotations is no JSON object"},
		{`{"run.oci.seccomp_fail_unknown_syscall": "1", "run.oci.keep_original_groups": "1"}`, ""},
		{`null`, ""},
		{`{}`, ""},
	} {
		src := []byte(`{"annotations": ` + tt.annotations + `}`)
		v, err := ReadJSON(src)
		if err != nil {
			t.Fatal(err)
		}
		err = FilterAnnotation(src, &v)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.annotations, err, tt.want)
		}
	}
	if v, err := ReadJSON([]byte(`{}`)); err != nil || FilterAnnotation([]byte(`{}`), &v) != nil {
		t.Error("a config without annotations is refused")
	}
}
