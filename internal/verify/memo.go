package verify

import (
	"crypto/sha256"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/bpf"
)

// Memo answers each question once for all filters that are the same, as those
// of a host's containers are. The zero Memo is ready; it may be shared.
type Memo struct {
	mu    sync.Mutex
	known map[asked]func() (Verdict, error)
}

type asked struct {
	filter  [sha256.Size]byte
	big     bool
	region  bpf.Region
	options Options
}

// Ask is Question.Ask.
func (m *Memo) Ask(f bpf.Filter, q Question, o Options) (Verdict, error) {
	v, err := m.find(asked{digest(f), q.Call.ABI.BigEndian, q.Region, o}, f, q)()
	if err == nil {
		v.Call = q.Call
	}
	return v, err
}

func (m *Memo) find(key asked, f bpf.Filter, q Question) func() (Verdict, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	answer, ok := m.known[key]
	if !ok {
		if m.known == nil {
			m.known = map[asked]func() (Verdict, error){}
		}
		answer = sync.OnceValues(func() (Verdict, error) { return q.Ask(f, key.options) })
		m.known[key] = answer
	}
	return answer
}

// digest tells stacks apart, also those whose programs follow each other with
// the same instructions.
func digest(f bpf.Filter) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range f {
		one := sha256.Sum256(p.Bytes(bpf.Little))
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}
