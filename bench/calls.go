package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/jedib0t/go-pretty/v6/table"
)

// batches is how often a call is timed in one round, 64 at a time.
const batches = 100

// calls times calls that have nothing to do with AF_ALG.
func (b *brokerBench) calls() error {
	fmt.Printf("other calls, ns: %d rounds of %d batches\n\n", b.rounds, batches)
	ways := []way{direct, throughFloor, throughBroker}
	times := map[way]map[string][]float64{}
	var names []string
	err := b.inTurn(ways, func(_ int, w way) error {
		out, err := b.run(w, b.broker, "calls", strconv.Itoa(batches))
		if err != nil {
			return err
		}
		if times[w] == nil {
			times[w] = map[string][]float64{}
		}
		for line := range strings.SplitSeq(out, "\n") {
			name, text, _ := strings.Cut(line, "\t")
			ns, err := strconv.ParseFloat(text, 64)
			if err != nil {
				return fmt.Errorf("calls printed %q", line)
			}
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
			times[w][name] = append(times[w][name], ns)
		}
		return nil
	})
	if err != nil {
		return err
	}
	t := newTable()
	t.AppendHeader(table.Row{"call", "no filter", "C floor", "broker", "floor / none", "broker / none", "broker / floor"})
	for _, name := range names {
		none, floor, ours := times[direct][name], times[throughFloor][name], times[throughBroker][name]
		t.AppendRow(table.Row{
			name, nano(none), nano(floor), nano(ours),
			ratio(floor, none), ratio(ours, none), ratio(ours, floor),
		})
	}
	t.Render()
	return nil
}

func nano(ns []float64) string { return fmt.Sprintf("%.0f", middle(ns)) }

// data times the data over an operation socket.
func (b *brokerBench) data() error {
	const hashes = 20
	if !b.real {
		return nil
	}
	fmt.Printf("\nhmac(sha512) on an operation socket, µs: %d rounds\n\n", b.rounds)
	large, small := map[way][]float64{}, map[way][]float64{}
	err := b.inTurn(b.ways(), func(_ int, w way) error {
		ns, err := b.times(w, "data", strconv.Itoa(hashes))
		if err == nil {
			large[w], small[w] = append(large[w], ns[0]), append(small[w], ns[1])
		}
		return err
	})
	if err != nil {
		return err
	}
	t := newTable()
	t.AppendHeader(table.Row{"what", "direct", "C floor", "broker", "broker / direct"})
	for _, row := range []struct {
		name string
		ns   map[way][]float64
	}{{"1 MiB, 16 KiB at a time", large}, {"64 bytes", small}} {
		t.AppendRow(table.Row{
			row.name, micro(row.ns[direct]), micro(row.ns[throughFloor]), micro(row.ns[throughBroker]),
			ratio(row.ns[throughBroker], row.ns[direct]),
		})
	}
	t.Render()
	return nil
}

// notifications counts the calls that reach the broker: those that should not,
// and those of sessions, so that the count is known to work.
func (b *brokerBench) notifications() error {
	const few = 100
	o := b.broker
	o.Counts = filepath.Join(b.dir, "counts")
	made, err := b.run(throughBroker, o, "calls", "count")
	if err != nil {
		return err
	}
	others, err := o.answered()
	if err != nil {
		return err
	}
	if _, err := b.run(throughBroker, o, "client", strconv.Itoa(few)); err != nil {
		return err
	}
	session, err := o.answered()
	if err != nil {
		return err
	}
	began := session["socket"]
	fmt.Printf("\nnotifications of %s calls (binds of AF_INET, AF_INET6 and AF_UNIX, sockets of other families, accept with an address): %d\n", made, sum(others))
	fmt.Printf("notifications of %d sessions: %d\n", began, sum(session))
	if sum(others) > 0 {
		return fmt.Errorf("calls that have nothing to do with AF_ALG reached the broker: %v", others)
	}
	if began < few || sum(session) != 4*began {
		return errors.New("a session is not four notifications: " + fmt.Sprint(session))
	}
	return nil
}

// answered reads the broker's count.
func (o brokered) answered() (map[string]int, error) {
	text, err := os.ReadFile(o.Counts)
	if err != nil {
		return nil, err
	}
	var counts map[string]int
	err = json.Unmarshal(text, &counts)
	return counts, errors.Join(err, os.Remove(o.Counts))
}

func sum(counts map[string]int) (n int) {
	for c := range maps.Values(counts) {
		n += c
	}
	return n
}

// benchBroker prints the costs of the broker.
func benchBroker(rounds int, built string) error {
	b, err := newBrokerBench(rounds, built)
	if err != nil {
		return err
	}
	defer b.close()
	if err := b.sessions(); err != nil {
		return err
	}
	fmt.Println()
	if err := b.calls(); err != nil {
		return err
	}
	if err := b.data(); err != nil {
		return err
	}
	return b.notifications()
}
