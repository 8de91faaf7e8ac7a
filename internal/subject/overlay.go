package subject

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// overlays knows the overlays of the reader's mount namespace, and on which of
// them every change of a file shows. An overlay changes files in its upper
// layer, and shows that layer's times. The layer's path is trusted where the
// reader sees the mount itself: in a namespace of its own a workload mounts as
// it likes.
type overlays struct {
	mu      sync.Mutex
	mounts  *os.File // mountinfo; poll reports mounts that come or go
	stamped []device
}

type device struct{ major, minor int }

func openOverlays(proc int) (*overlays, error) {
	fd, err := openAt(proc, "self/mountinfo", unix.O_RDONLY)
	if err != nil {
		return nil, fmt.Errorf("open mountinfo: %w", err)
	}
	// Go's poller leaves a blocking descriptor alone; otherwise it would take
	// the event itself.
	o := &overlays{mounts: os.NewFile(uintptr(fd), "mountinfo")}
	o.read()
	return o, nil
}

// stamp reports whether every change of a file on the overlay with this device
// number shows. For an unknown overlay it returns false.
func (o *overlays) stamp(dev uint64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	poll := []unix.PollFd{{Fd: int32(o.mounts.Fd()), Events: unix.POLLPRI}}
	if n, err := unix.Poll(poll, 0); err != nil || n > 0 {
		o.read()
	}
	return slices.Contains(o.stamped, device{int(unix.Major(dev)), int(unix.Minor(dev))})
}

func (o *overlays) read() {
	o.stamped = nil
	if _, err := o.mounts.Seek(0, io.SeekStart); err != nil {
		return
	}
	all, err := mountinfo.GetMountsFromReader(o.mounts, mountinfo.FSTypeFilter("overlay"))
	if err != nil {
		return
	}
	for _, m := range all {
		if stampsLayer(m.VFSOptions) {
			o.stamped = append(o.stamped, device{m.Major, m.Minor})
		}
	}
}

// stampsLayer reports whether changes in the upper layer of an overlay show.
// Without an upper layer, nothing changes through the overlay.
func stampsLayer(options string) bool {
	upper := ""
	for option := range strings.SplitSeq(options, ",") {
		if path, ok := strings.CutPrefix(option, "upperdir="); ok {
			upper = path
		}
	}
	if upper == "" {
		return strings.Contains(options, "lowerdir=")
	}
	var fs unix.Statfs_t
	// A backslash in a path stands for a character that is escaped here.
	return filepath.IsAbs(upper) && !strings.Contains(options, `\`) &&
		unix.Statfs(upper, &fs) == nil && slices.Contains(stamping, int64(fs.Type))
}
