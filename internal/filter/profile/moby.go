package profile

import (
	"embed"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"sync"
)

// The default profiles of Docker, as profiles/seccomp/default.json and, from
// version 28.5 on, github.com/moby/profiles/seccomp have them at the tags of
// github.com/moby/moby. A daemon has its own compiled in, and tells nobody.
//
//go:embed moby/*.json
var mobyFiles embed.FS

// release is a version of dockerd: year or major, minor, patch.
type release [3]int

// mobyDefaults are the releases from which on there is another default.
var mobyDefaults = []struct {
	from release
	file string
}{
	{release{20, 10, 0}, "20.10.0"},
	{release{20, 10, 4}, "20.10.4"},
	{release{20, 10, 10}, "20.10.10"},
	{release{20, 10, 18}, "20.10.18"},
	{release{20, 10, 22}, "20.10.22"},
	{release{20, 10, 23}, "20.10.18"},
	{release{20, 10, 26}, "20.10.26"},
	{release{23, 0, 0}, "23.0.0"},
	{release{23, 0, 7}, "23.0.7"},
	{release{23, 0, 10}, "23.0.10"},
	{release{24, 0, 0}, "23.0.0"},
	{release{24, 0, 3}, "23.0.7"},
	{release{25, 0, 0}, "25.0.0"},
	{release{25, 0, 3}, "25.0.3"},
	{release{28, 2, 0}, "28.2.0"},
	{release{29, 4, 2}, "29.4.2"},
	{release{29, 4, 3}, "29.4.3"},
}

// mobyLast are the last releases of each series that were looked at: what comes
// after them may have another default.
var mobyLast = []release{
	{20, 10, 27}, {23, 0, 18}, {24, 0, 9}, {25, 0, 17}, {26, 0, 2}, {26, 1, 5},
	{27, 0, 3}, {27, 1, 2}, {27, 2, 1}, {27, 3, 1}, {27, 4, 1}, {27, 5, 1},
	{28, 0, 4}, {28, 1, 1}, {28, 2, 2}, {28, 3, 3}, {28, 4, 0}, {28, 5, 2},
	{29, 0, 4}, {29, 1, 5}, {29, 2, 1}, {29, 3, 1}, {29, 4, 3}, {29, 5, 3}, {29, 6, 2}, {29, 7, 2},
}

// A package of a distribution adds to the number what says nothing of profiles.
var dockerVersion = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(-(?:rc|beta|alpha|dev).*)?`) })

// DockerOf is the default profile of a version of dockerd. Where that is not
// known, it is the one of the last release before, or of the first; known is
// false then.
func DockerOf(version string) (base []byte, known bool, err error) {
	v, known := parseRelease(version)
	file := mobyDefaults[0].file
	for _, d := range mobyDefaults {
		if slices.Compare(d.from[:], v[:]) <= 0 {
			file = d.file
		}
	}
	base, err = mobyFiles.ReadFile("moby/" + file + ".json")
	if err != nil {
		return nil, false, fmt.Errorf("the default profile of Docker %s: %w", version, err)
	}
	return base, known && slices.ContainsFunc(mobyLast, func(last release) bool {
		return v[0] == last[0] && v[1] == last[1] && v[2] <= last[2]
	}), nil
}

func parseRelease(version string) (v release, known bool) {
	m := dockerVersion().FindStringSubmatch(version)
	if m == nil {
		return mobyLast[len(mobyLast)-1], false
	}
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1])
	}
	return v, m[4] == ""
}
