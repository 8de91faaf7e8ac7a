package kept

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/afalg-policy/afalg-policy/internal/oci"
)

// proofsName is the directory of the proofs in CacheDir, or in StateDir.
const proofsName = "proofs"

// OpenProofs opens what this build, of that name and version, has proved; nil if
// it cannot be kept.
func OpenProofs(tool string) *oci.Memo {
	for _, dir := range proofDirs() {
		if m, err := oci.OpenMemo(dir, buildIdentity(tool)); err == nil {
			return m
		}
	}
	return nil
}

// proofDirs lists where proofs can be kept, the best first.
func proofDirs() []string { return keptDirs(proofsName) }

// buildIdentity distinguishes this build from any other: what another one
// proved does not count. The device is left out, because its number may change
// when the machine starts.
func buildIdentity(tool string) string {
	var st unix.Stat_t
	if err := unix.Stat("/proc/self/exe", &st); err != nil {
		return fmt.Sprint(tool, os.Getpid())
	}
	return fmt.Sprint(tool, st.Ino, st.Size, st.Mtim, st.Ctim)
}

// Forget removes all that is kept: no platform is installed any more.
func Forget() error {
	var errs []error
	for _, dir := range []string{CacheDir, filepath.Join(StateDir(), proofsName), filepath.Join(StateDir(), plansName), filepath.Join(StateDir(), basesName), filepath.Join(StateDir(), givenName)} {
		errs = append(errs, removeInUse(dir))
	}
	return errors.Join(errs...)
}

// removeInUse removes a directory to which an agent may still write, which is
// stopped after uninstall.
func removeInUse(dir string) (err error) {
	for range 50 {
		if err = os.RemoveAll(dir); !errors.Is(err, unix.ENOTEMPTY) {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
