package host

// Later is a file that somebody changed after its installation.
type Later struct {
	Now, Before, After []byte // its content; Before is nil if there was no file
	Content            bool   // only the content was changed: neither mode nor owner
}

// Later compares a file with a record. The file is the same, or l has its other
// content; l is nil where more than the content was changed.
func (h *Host) Later(r *Record, e *Entry) (l *Later, same bool, err error) {
	n, err := h.now(e.Path)
	switch {
	case err != nil:
		return nil, false, err
	case r.known(e, n):
		return nil, true, nil
	case n.same(e.Before), n.Kind != regular, e.After.Kind != regular:
		return nil, false, nil
	}
	l = &Later{
		Now: n.Data, After: e.After.Data,
		Content: n.Mode == e.After.Mode && n.UID == e.After.UID && n.GID == e.After.GID,
	}
	if e.Before.Kind == regular {
		l.Before = append([]byte{}, e.Before.Data...)
	}
	return l, false, nil
}

// Rebase makes an entry say that the file was installed as it is now, and had
// this content before; nil if there was no file.
func (h *Host) Rebase(e *Entry, before []byte) error {
	now, err := h.now(e.Path)
	if err != nil {
		return err
	}
	e.After, e.Before = now, node{}
	if before != nil {
		e.Before = node{Kind: regular, Mode: now.Mode, UID: now.UID, GID: now.GID, Xattrs: now.Xattrs, Data: before}
	}
	return nil
}
