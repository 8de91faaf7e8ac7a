package telemetry

import (
	"bufio"
	"encoding/json"
	"io"
	"time"
)

// Line is what a log records about one decision. Its texts are those of others, whatever
// wrote the log.
type Line struct {
	Time       time.Time `json:"time"`
	Container  string    `json:"container"`
	Call       string    `json:"call"`
	Executable string    `json:"executable"`
	Unit       string    `json:"unit"`
	Algorithm  string    `json:"algorithm"`
	Verdict    string    `json:"verdict"` // "allowed" or "denied"
	Rule       string    `json:"rule"`
	Dropped    uint64    `json:"dropped"` // lines that are missing here
}

// Allowed reports whether the call was carried out.
func (l Line) Allowed() bool { return l.Verdict == allowed.String() }

// Read calls do for each line of a log, and returns how many it could not read. Those
// are none of ours, or cut off.
func Read(r io.Reader, do func(Line)) (broken int, err error) {
	lines := bufio.NewReaderSize(r, maxLine+1)
	for {
		text, long, err := lines.ReadLine()
		if err == io.EOF {
			return broken, nil
		}
		if err != nil {
			return broken, err
		}
		whole := !long
		for long && err == nil {
			_, long, err = lines.ReadLine()
		}
		var l Line
		if len(text) == 0 && whole {
			continue
		}
		if !whole || json.Unmarshal(text, &l) != nil || l.Time.IsZero() {
			broken++
			continue
		}
		do(l)
	}
}
