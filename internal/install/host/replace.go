package host

import "path"

// Replace gives a file another content in one step, and keeps its mode, owner
// and extended attributes. It refuses a link, and a place where others than
// root could put another file.
func (h *Host) Replace(p string, data []byte) error {
	before, err := h.newcomer(p)
	if err != nil {
		return err
	}
	after := h.target(File{Path: p, Mode: Plain, Data: data}, before)
	after.Xattrs = before.Xattrs
	t := &transaction{Host: h}
	if err = t.writeBeside(p, after); err == nil {
		err = t.rename(newName(p), p)
	}
	if err != nil {
		t.removeBeside(p)
		return err
	}
	return t.syncDir(path.Dir(p))
}
