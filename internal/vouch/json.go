package vouch

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
)

var errNotObjects = errors.New("not a JSON array of objects")

// eachObject calls f for each object of an array, without decoding it: a store
// of thousands of containers has some MB, of which one entry matters.
func eachObject(src []byte, f func(object []byte)) error {
	i := skipSpace(src, 0)
	if i >= len(src) || src[i] != '[' {
		return errNotObjects
	}
	if i = skipSpace(src, i+1); i < len(src) && src[i] == ']' {
		return atEnd(src, i+1)
	}
	for {
		end := endOfObject(src, i)
		if end < 0 {
			return errNotObjects
		}
		f(src[i:end])
		i = skipSpace(src, end)
		switch {
		case i < len(src) && src[i] == ',':
			i = skipSpace(src, i+1)
		case i < len(src) && src[i] == ']':
			return atEnd(src, i+1)
		default:
			return errNotObjects
		}
	}
}

func atEnd(src []byte, i int) error {
	if skipSpace(src, i) != len(src) {
		return errNotObjects
	}
	return nil
}

func skipSpace(src []byte, i int) int {
	for i < len(src) && (src[i] == ' ' || src[i] == '\n' || src[i] == '\t' || src[i] == '\r') {
		i++
	}
	return i
}

// endOfObject returns the offset after the object that begins at i, or -1
// without one.
func endOfObject(src []byte, i int) int {
	if i >= len(src) || src[i] != '{' {
		return -1
	}
	for depth := 0; i < len(src); i++ {
		switch src[i] {
		case '{':
			depth++
		case '}':
			if depth--; depth == 0 {
				return i + 1
			}
		case '"':
			if i = endOfText(src, i+1); i < 0 {
				return -1
			}
		}
	}
	return -1
}

// endOfText returns the offset of the quote that ends the string with its first
// byte at i, or -1 without one.
func endOfText(src []byte, i int) int {
	for from := i; ; {
		n := bytes.IndexByte(src[from:], '"')
		if n < 0 {
			return -1
		}
		end := from + n
		escapes := 0
		for end-escapes > i && src[end-escapes-1] == '\\' {
			escapes++
		}
		if escapes%2 == 0 {
			return end
		}
		from = end + 1
	}
}

// references returns the digests in repositories.json, of the references to one
// image: {"Repositories": {NAME: {NAME@DIGEST: ID}}}. It searches for the ID
// first, as there may be thousands.
func references(src []byte, id string) ([]string, error) {
	if !bytes.Contains(src, []byte(id)) {
		return nil, nil
	}
	var file struct {
		Repositories map[string]map[string]string
	}
	if err := json.Unmarshal(src, &file); err != nil {
		return nil, fmt.Errorf("repositories.json: %w", err)
	}
	var found []string
	for _, repository := range file.Repositories {
		for reference, of := range repository {
			if of == id {
				found = append(found, digestsOf(reference)...)
			}
		}
	}
	return found, nil
}
