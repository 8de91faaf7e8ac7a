package main

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/jedib0t/go-pretty/v6/table"

	"github.com/afalg-policy/afalg-policy/internal/lsm"
)

// loadTable has what it takes to put policies in force.
type loadTable []struct {
	what string
	took time.Duration
}

func (l *loadTable) add(what string, took time.Duration) {
	*l = append(*l, struct {
		what string
		took time.Duration
	}{what, took})
}

func (l loadTable) print(unit clock, yardstick time.Duration) {
	fmt.Print("to put a policy in force\n\n")
	t := newTable()
	t.AppendHeader(table.Row{"what", "takes", "starts of a program"})
	for _, one := range l {
		t.AppendRow(table.Row{one.what, unit.whole(one.took), fmt.Sprintf("%.2f", float64(one.took)/float64(yardstick))})
	}
	t.Render()
	fmt.Print("the bar: a load under 1 s natively, a swap under 50 ms. Multiply the last column by the yardstick of a native machine\n\n")
}

// manyRules is as many as a table holds: the one of the programs is among them,
// and a load needs another for its probe.
const manyRules = 255

// many is a policy whose rules have an executable with its digest, a user, a unit
// and three algorithms each.
func (k *kernelHalf) many() (string, error) {
	algorithms := []string{"sha1", "sha256", "sha384", "sha512", "hmac(sha1)", "hmac(sha256)", "hmac(sha384)", "hmac(sha512)", "cmac(aes)", "crc32c"}
	text, err := k.policy("true", k.attachment == lsm.LSM)()
	if err != nil {
		return "", err
	}
	for i := 1; i < manyRules; i++ {
		name := fmt.Sprintf("service-%03d", i)
		path, data := filepath.Join(k.dir, name), []byte(name)
		if err := os.WriteFile(path, data, 0o700); err != nil {
			return "", err
		}
		text += fmt.Sprintf("  - rule: %s\n    binaries: [{path: %q, sha256: %x}]\n    users: [\"%d\"]\n    units: [%s.service]\n", name, path, sha256.Sum256(data), 1000+i, name)
		text += fmt.Sprintf("    algorithms: {hash: [%q, %q], skcipher: [\"cbc(aes)\"]}\n", algorithms[i%len(algorithms)], algorithms[(i+1)%len(algorithms)])
	}
	time.Sleep(time.Second) // a younger change of a file says nothing: the load would wait
	return text, nil
}

// swaps times changes of the table alone.
func (k *kernelHalf) swaps() error {
	for _, what := range []string{"a table of 255 rules in place of that", "the same again"} {
		if err := k.load(what, k.many); err != nil {
			return err
		}
	}
	return withSlot(func(slot, inner *ebpf.Map) error {
		var all []float64
		for range 9 {
			began := time.Now()
			if err := slot.Put(uint32(0), inner); err != nil {
				return err
			}
			all = append(all, float64(time.Since(began)))
		}
		k.loaded.add("of that, to store the table in the slot", time.Duration(middle(all)))
		return nil
	})
}

// withSlot calls f with the slot, and the table in it.
func withSlot(f func(slot, inner *ebpf.Map) error) error {
	slot, err := ebpf.LoadPinnedMap(filepath.Join(lsm.Dir, "map_slot"), nil)
	if err != nil {
		return err
	}
	defer slot.Close()
	var inner *ebpf.Map
	if err := slot.Lookup(uint32(0), &inner); err != nil {
		return err
	}
	defer inner.Close()
	return f(slot, inner)
}

// memory prints what the maps take, as the kernel says.
func (k *kernelHalf) memory() error {
	pins, err := filepath.Glob(filepath.Join(lsm.Dir, "map_*"))
	if err != nil {
		return err
	}
	fmt.Printf("memory of the maps under a policy of %d rules\n\n", manyRules)
	t := newTable()
	t.AppendHeader(table.Row{"map", "entries at most", "bytes"})
	var total uint64
	row := func(name string, m *ebpf.Map) error {
		info, err := m.Info()
		if err != nil {
			return err
		}
		bytes, ok := info.Memlock()
		total += bytes
		if ok {
			t.AppendRow(table.Row{name, m.MaxEntries(), bytes})
		} else {
			t.AppendRow(table.Row{name, m.MaxEntries(), "not said"})
		}
		return nil
	}
	for _, pin := range pins {
		m, err := ebpf.LoadPinnedMap(pin, nil)
		if err != nil {
			return err
		}
		err = row(strings.TrimPrefix(filepath.Base(pin), "map_"), m)
		m.Close()
		if err != nil {
			return err
		}
	}
	if err := withSlot(func(_, inner *ebpf.Map) error { return row("the table in the slot", inner) }); err != nil {
		return err
	}
	t.AppendFooter(table.Row{"all", "", total})
	t.Render()
	fmt.Print("the bar: under 1 MiB. Only the table grows with the rules. Before Linux 6.4 the kernel says what full maps would take\n")
	return nil
}

// sessionTable has what sessions cost.
type sessionTable []struct {
	through string
	ns      []float64
}

// session times sessions: socket, bind, key, accept, close.
func (k *kernelHalf) session(through string, w way) error {
	const sessions = 200
	var all []float64
	for range k.rounds {
		ns, err := k.times(w, "client", strconv.Itoa(sessions))
		if err != nil {
			return err
		}
		all = append(all, ns[1]) // the mean
	}
	k.sessioned = append(k.sessioned, struct {
		through string
		ns      []float64
	}{through, all})
	return nil
}

func (s sessionTable) print(unit clock) {
	fmt.Print("a session of one process (socket, bind, key, accept, close), the mean\n\n")
	t := newTable()
	what, second := "ns", "binds a second"
	if unit.counts() {
		what, second = "instructions", "binds a second, at 10⁹ instructions"
	}
	t.AppendHeader(table.Row{"through", what, "of a direct one", second})
	for _, one := range s {
		cost := unit.of(middle(one.ns))
		t.AppendRow(table.Row{one.through, fmt.Sprintf("%.0f", cost), fmt.Sprintf("%.2f", middle(one.ns)/middle(s[0].ns)), fmt.Sprintf("%.0f", 1e9/cost)})
	}
	t.Render()
	fmt.Println("the bar: 10,000 binds a second through the kernel half")
	fmt.Println()
}
