package lsm

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/afalg-policy/afalg-policy/internal/afalg"
	"github.com/afalg-policy/afalg-policy/internal/lsm/guard"
	"github.com/afalg-policy/afalg-policy/internal/lsm/table"
	"github.com/afalg-policy/afalg-policy/internal/plan"
	"github.com/afalg-policy/afalg-policy/internal/policy"
	"github.com/afalg-policy/afalg-policy/internal/subject"
)

// kernelDecider asks the programs about requests, in the kernel, without a hook.
type kernelDecider struct {
	spec *ebpf.CollectionSpec
	prog *ebpf.Program
	maps pinned
}

func newKernelDecider(t testing.TB) *kernelDecider {
	t.Helper()
	s, err := guard.LoadLSM()
	must(t, err)
	for name := range s.Programs {
		if name != guard.LSMProgDecide {
			delete(s.Programs, name)
		}
	}
	c, err := ebpf.NewCollection(s)
	if err != nil {
		t.Fatalf("%v\n(the test needs root, and a kernel with BPF)", err)
	}
	t.Cleanup(c.Close)
	return &kernelDecider{s, c.Programs[guard.LSMProgDecide], c.Maps}
}

// load puts a table in force, with containers that are registered in it.
func (d *kernelDecider) load(t testing.TB, tab *table.Table) {
	t.Helper()
	m, err := fill(d.spec.Maps["slot"].InnerMap, tab)
	must(t, err)
	defer m.Close()
	must(t, d.maps["slot"].Put(uint32(0), m))
}

// ask answers up to guard.Questions questions.
func (d *kernelDecider) ask(t testing.TB, all []guard.Question) []guard.Question {
	t.Helper()
	keys := make([]uint32, len(all))
	for i := range keys {
		keys[i] = uint32(i)
	}
	_, err := d.maps["questions"].BatchUpdate(keys, all, nil)
	must(t, err)
	_, err = d.prog.Run(&ebpf.RunOptions{})
	must(t, err)
	var cursor ebpf.MapBatchCursor
	answers := make([]guard.Question, guard.Questions)
	_, err = d.maps["questions"].BatchLookup(&cursor, make([]uint32, guard.Questions), answers, nil)
	if err != nil && !strings.Contains(err.Error(), "key does not exist") {
		t.Fatal(err)
	}
	return answers[:len(all)]
}

// world is a host of few names, so that requests often meet a rule.
type world struct {
	host  table.Host
	paths []string
	*rand.Rand
}

func newWorld(r *rand.Rand) *world {
	w := &world{Rand: r, host: table.Host{Users: map[string]uint32{"alice": 1000, "bob": 70000}, Files: map[string]table.File{}}}
	for i := range 5 {
		path := fmt.Sprintf("/usr/bin/p%d", i)
		w.paths = append(w.paths, path)
		if i < 4 { // the last one is not on the host
			w.host.Files[path] = table.File{
				Binary:     guard.Binary{Inode: uint64(100 + i), Device: 8<<20 | 1, Generation: uint32(i % 2)},
				ChangedSec: int64(1000 + i), ChangedNsec: uint32(i), SHA256: sum(i % 3),
			}
		}
	}
	return w
}

func sum(i int) string { return strings.Repeat(fmt.Sprint(i), 64) }

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// some picks a few, often none.
func some[T any](r *rand.Rand, from ...T) (few []T) {
	for range max(0, r.IntN(4)-1) {
		few = append(few, pick(r, from...))
	}
	return few
}

var (
	longName       = strings.Repeat("n", 103)
	longUnit       = strings.Repeat("u", guard.MaxUnit-len(".service")) + ".service"
	tooLong        = "u" + longUnit
	algorithmNames = []string{"sha256", "hmac(sha512)", "cbc(aes)", "sha25", "sha256 ", "*", longName}
	units          = []string{"a.service", "b.scope", "a@.service", "a@x.service", "x@y@z.service", "x@.service", "_c.mount", longUnit, tooLong}
	ids            = []uint64{11, 12, 13}
)

func (w *world) plan() *plan.Plan {
	p := &plan.Plan{SocketErrno: plan.Errno{Number: 97}, BindErrno: plan.Errno{Number: 2}}
	for i := range 1 + w.IntN(pick(w.Rand, 3, 8, 150)) {
		r := policy.Rule{Name: fmt.Sprintf("r%d", i), Anyone: w.IntN(20) == 0}
		for range 1 + w.IntN(2) {
			a := afalg.Algorithm{Type: pick(w.Rand, afalg.Type("hash"), "skcipher", "aead"), Name: pick(w.Rand, algorithmNames...)}
			r.Algorithms = append(r.Algorithms, policy.Algorithm{Algorithm: a})
		}
		if !r.Anyone {
			for _, path := range some(w.Rand, w.paths...) {
				r.Binaries = append(r.Binaries, policy.Binary{Path: path, SHA256: pick(w.Rand, "", sum(w.IntN(4)))})
			}
			r.Users = some(w.Rand, "root", "0", "1000", "alice", "bob", "nobody-here")
			r.Capabilities = some(w.Rand, "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_CHOWN")
			r.Units = some(w.Rand, units...)
			r.StrictExec = len(r.Binaries) > 0 && w.IntN(4) == 0
		}
		p.Rules = append(p.Rules, r)
	}
	return p
}

// container is registered in the kernel with grants; the zero one is not.
type container struct {
	cgroup uint64
	grants []string
}

// request makes a question for the kernel, and what Decide is to be asked for it.
func (w *world) request(containers []container) (guard.Question, plan.Request, *container) {
	var q guard.Question
	var r plan.Request
	r.Algorithm = afalg.Algorithm{Type: pick(w.Rand, afalg.Type("hash"), "skcipher", "aead", "has", ""), Name: pick(w.Rand, append(algorithmNames, "", "sha2566")...)}
	guard.SetText(q.Algorithm.Type[:], string(r.Algorithm.Type))
	guard.SetText(q.Algorithm.Name[:], r.Algorithm.Name)

	flag := func(bit uint32, n int) bool {
		if w.IntN(n) != 0 {
			q.Facts.Flags |= bit
			return true
		}
		return false
	}
	initial, clean := flag(guard.FactInitialUsers, 8), flag(guard.FactClean, 2)
	listener, known := !flag(guard.FactListener, 2) || w.IntN(8) != 0, flag(guard.FactBinary, 16)
	if listener {
		q.Facts.Flags &^= guard.FactListener
	}
	contained := !(w.IntN(3) != 0)
	if contained {
		q.Facts.Flags |= guard.FactContained
	}
	w.binary(&q, &r, known && initial && q.Facts.Flags&guard.FactListener == 0)
	r.CleanExec = clean
	w.credentials(&q, &r, initial)
	in := w.cgroups(&q, &r, containers)
	if in == nil && contained {
		in = &container{} // it holds no rule
	}
	return q, r, in
}

func (w *world) binary(q *guard.Question, r *plan.Request, counts bool) {
	path := pick(w.Rand, w.paths...)
	f, there := w.host.Files[path]
	if !there {
		f.Binary.Inode = 7
		path = "/usr/bin/other"
	}
	switch w.IntN(12) {
	case 0:
		f.Binary.Generation += 2
		path = "/usr/bin/other"
	case 1:
		f.Binary.Device++
		path = "/usr/bin/other"
	}
	q.Facts.Binary, q.Facts.ChangedSec, q.Facts.ChangedNsec = f.Binary, f.ChangedSec, f.ChangedNsec
	content := f.SHA256
	if w.IntN(4) == 0 { // changed since it was looked up
		q.Facts.ChangedNsec++
		content = ""
		if f.Binary.Generation == 0 { // nor is it known to be the same file
			path = "/usr/bin/other"
		}
	}
	if counts {
		r.Binary, r.SHA256 = path, content
	}
}

func (w *world) credentials(q *guard.Question, r *plan.Request, initial bool) {
	uid := pick(w.Rand, uint32(0), 1000, 70000, 1, 1<<32-2)
	q.Facts.User, r.UID = uid, &uid
	for name, id := range w.host.Users {
		if id == uid {
			r.User = name
		}
	}
	for _, name := range some(w.Rand, "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE", "CAP_KILL") {
		q.Facts.Capabilities |= 1 << slices.Index(afalg.Capabilities(), name)
		if initial {
			r.Capabilities = append(r.Capabilities, name)
		}
	}
}

// cgroups puts the request below some slices, perhaps into a container.
func (w *world) cgroups(q *guard.Question, r *plan.Request, containers []container) *container {
	var path []string
	for range w.IntN(4) {
		path = append(path, pick(w.Rand, "system.slice", "_x.slice", "user-1.slice", "a b.slice", "a@b.slice", ".slice", "slice", strings.Repeat("s", 200)+".slice"))
	}
	for range w.IntN(4) {
		path = append(path, pick(w.Rand, append(units, "a@x y.service", "_a.service", "__c.mount", "a@.b.service", "@a.service", "a", "a.b.service", "a@b@c.service", "docker-1.scope")...))
	}
	var inside *container
	for i, name := range path {
		if w.IntN(2) == 0 && len(containers) > 0 && inside == nil {
			inside = &containers[w.IntN(len(containers))]
			q.Cgroup[i] = inside.cgroup
		} else {
			q.Cgroup[i] = uint64(1000 + i)
		}
		guard.SetText(q.Name[i][:], name)
	}
	q.Levels = uint32(len(path))
	r.Unit, _ = subject.UnitOf("0::/" + strings.Join(path, "/") + "\n")
	for _, name := range path { // the kernel half sees no further than a name that is too long
		if len(strings.TrimPrefix(name, "_")) > guard.MaxUnit {
			r.Unit = ""
		}
		if !strings.HasSuffix(name, ".slice") {
			break
		}
	}
	return inside
}

// decided is what the reference says. The kernel half is stricter in one way: a
// unit with a name that is too long.
func decided(p *plan.Plan, in *container, r plan.Request) (allowed, reached bool) {
	if in != nil {
		p, _ = p.GrantedKnown(in.grants)
	}
	return plan.Decide(p, r).Allowed, plan.Reaches(p, r)
}

// TestDecide compares the programs, run by the kernel, with the reference: in an
// emulated machine, with few plans.
func TestDecide(t *testing.T) {
	plans := 60
	if testing.Short() {
		plans = 3
	}
	compareDecisions(t, plans)
}

func TestLongDecide(t *testing.T) { compareDecisions(t, 1000) }

func compareDecisions(t *testing.T, plans int) {
	d := newKernelDecider(t)
	var allowed, reached, total int
	for seed := range plans {
		w := newWorld(rand.New(rand.NewPCG(14, uint64(seed))))
		p := w.plan()
		tab, _, err := table.Compile(p, w.host, table.Options{Generation: uint64(seed)})
		must(t, err)
		d.load(t, tab)
		var containers []container
		for _, id := range ids {
			c := container{cgroup: id}
			for _, r := range p.Rules {
				if w.IntN(2) == 0 {
					c.grants = append(c.grants, r.Name)
				}
			}
			must(t, grantTo(d.maps["containers"], p, uint64(seed), Grantee{Cgroup: id, Rules: c.grants}))
			containers = append(containers, c)
		}
		questions := make([]guard.Question, guard.Questions)
		requests := make([]plan.Request, len(questions))
		inside := make([]*container, len(questions))
		for i := range questions {
			questions[i], requests[i], inside[i] = w.request(containers)
		}
		for i, a := range d.ask(t, questions) {
			wantAllowed, wantReached := decided(p, inside[i], requests[i])
			if (a.Allowed != 0) != wantAllowed || (a.Reached != 0) != wantReached {
				var one []string
				for _, r := range p.Rules {
					if q := (&plan.Plan{Rules: []policy.Rule{r}}); plan.Reaches(q, requests[i]) {
						one = append(one, r.Name)
					}
				}
				var path []string
				for l := range questions[i].Levels {
					path = append(path, fmt.Sprint(guard.Text(questions[i].Name[l][:]), questions[i].Cgroup[l]))
				}
				t.Fatalf("%v %v plan %d, request %d: the kernel says allowed %d, reached %d; Decide %v, %v\n%+v\n%+v\n%+v\n%+v",
					one, path, seed, i, a.Allowed, a.Reached, wantAllowed, wantReached, requests[i], inside[i], questions[i].Facts, p.Rules)
			}
			total++
			allowed += int(a.Allowed)
			reached += int(a.Reached)
		}
	}
	t.Logf("%d requests: %d allowed, %d reached", total, allowed, reached)
	if allowed*50 < total || (total-reached)*50 < total {
		t.Errorf("of %d requests %d are allowed and %d reached: too one-sided to show much", total, allowed, reached)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
