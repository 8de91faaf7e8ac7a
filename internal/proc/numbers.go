package proc

import (
	"os"
	"slices"
	"strconv"
)

// Numbers lists the entries of a directory that are numbers, sorted: the processes
// of /proc, the threads of /proc/PID/task.
func Numbers(dir string) ([]int, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, err
	}
	var list []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			list = append(list, n)
		}
	}
	slices.Sort(list)
	return list, nil
}
