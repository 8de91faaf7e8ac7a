package verify

import (
	"crypto/sha256"
	"sync"

	"github.com/afalg-policy/afalg-policy/internal/filter/cbpf"
)

// Memo answers each question once for all equal filters, such as those of a
// host's containers. The zero Memo is ready; it may be shared.
type Memo struct {
	mu    sync.Mutex
	known map[asked]func() (Verdict, error)
}

type asked struct {
	filter  [sha256.Size]byte
	big     bool
	region  cbpf.Region
	options Options
}

// Ask is Question.Ask.
func (m *Memo) Ask(f cbpf.Filter, q Question, o Options) (Verdict, error) {
	v, err := m.find(asked{digest(f), q.Call.ABI.BigEndian(), q.Region, o}, f, q)()
	if err == nil {
		v.Call = q.Call
	}
	return v, err
}

func (m *Memo) find(key asked, f cbpf.Filter, q Question) func() (Verdict, error) {
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

// digest distinguishes stacks, even those whose programs together have the same
// instructions.
func digest(f cbpf.Filter) (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, p := range f {
		one := sha256.Sum256(p.Bytes(cbpf.Little))
		h.Write(one[:])
	}
	h.Sum(sum[:0])
	return sum
}
