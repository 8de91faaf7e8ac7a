// Package archive compresses what artefacts are made of.
package archive

import (
	"bytes"
	"compress/gzip"
)

// Gzip compresses data, and leaves name and time out of the header: the same data
// gives the same bytes.
func Gzip(data []byte) ([]byte, error) {
	var b bytes.Buffer
	w, err := gzip.NewWriterLevel(&b, gzip.BestCompression)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
