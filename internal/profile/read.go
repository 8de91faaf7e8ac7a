package profile

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Read reads a profile as the runtimes do, which leave out keys that they do
// not know. Where decoders differ, or none would take the text, it fails like
// Parse.
func Read(src []byte) (*Profile, error) {
	if err := CheckJSON(src); err != nil {
		return nil, err
	}
	var p Profile
	if err := json.Unmarshal(src, &p); err != nil {
		var kind *json.UnmarshalTypeError
		if errors.As(err, &kind) {
			return nil, fmt.Errorf("%s: %s cannot be a JSON %s", Place(src, int(kind.Offset)-1), kind.Field, kind.Value)
		}
		return nil, fmt.Errorf("reading a seccomp profile: %w", err)
	}
	return &p, p.normalize()
}
