package profile

import (
	"fmt"
	"strings"

	"github.com/tailscale/hujson"
)

// By annotations that begin so crun takes another filter than linux.seccomp
// says, or hands its listener to somebody else (crun(1)).
const filterAnnotations = "run.oci.seccomp"

// stricter is the one among them that only has crun fail more often.
const stricter = "run.oci.seccomp_fail_unknown_syscall"

// FilterAnnotation refuses a config.json by whose annotations a runtime may
// install another filter than linux.seccomp describes: of that one nothing can
// be proved. The error starts with line:col.
func FilterAnnotation(src []byte, config *hujson.Value) error {
	annotations := config.Find("/annotations")
	if annotations == nil {
		return nil
	}
	members, ok := annotations.Value.(*hujson.Object)
	if !ok {
		if annotations.Value.Kind() == 'n' {
			return nil
		}
		return fmt.Errorf("%s: annotations is no JSON object", Place(src, annotations.StartOffset))
	}
	for _, m := range members.Members {
		name := m.Name.Value.(hujson.Literal).String()
		if strings.HasPrefix(name, filterAnnotations) && name != stricter {
			return fmt.Errorf("%s: the annotation %q has crun take another filter than linux.seccomp says, or hands its listener to others, so that nothing can be proved: remove it",
				Place(src, m.Name.StartOffset), name)
		}
	}
	return nil
}
