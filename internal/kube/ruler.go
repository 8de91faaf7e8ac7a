package kube

import (
	"bytes"
	"unicode/utf8"
)

// ruler gives offsets in a text as lines and columns. A list has thousands of containers,
// and may be in one line: each look-up is short.
type ruler struct {
	src   []byte
	marks []mark // one every ruled bytes
}

type mark struct{ line, column int } // from 0

const ruled = 4096

func newRuler(src []byte) *ruler {
	r := &ruler{src: src, marks: make([]mark, 1, len(src)/ruled+1)}
	for at := ruled; at < len(src); at += ruled {
		r.marks = append(r.marks, r.marks[len(r.marks)-1].past(src[at-ruled:at]))
	}
	return r
}

// past is the place behind a text. The column counts characters: the bytes that begin one.
func (m mark) past(text []byte) mark {
	if n := bytes.Count(text, []byte("\n")); n > 0 {
		m.line += n
		m.column = 0
		text = text[bytes.LastIndexByte(text, '\n')+1:]
	}
	for _, b := range text {
		if utf8.RuneStart(b) {
			m.column++
		}
	}
	return m
}

func (r *ruler) position(offset int) (line, column int) {
	offset = min(max(offset, 0), len(r.src))
	i := min(offset/ruled, len(r.marks)-1)
	m := r.marks[i].past(r.src[i*ruled : offset])
	return m.line + 1, m.column + 1
}
