package node

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/kube"
)

// server answers as the API server does: it applies a JSON patch whole or not at
// all, and refuses one whose test fails with 422.
type server struct {
	*httptest.Server
	t     *testing.T
	token string

	mu      sync.Mutex
	version int
	labels  map[string]any
	taints  []any
	patches int
	// before is called with each request, and may answer it.
	before func(w http.ResponseWriter, r *http.Request) bool
}

func newServer(t *testing.T) (*server, *Marks) {
	s := &server{t: t, token: "first", version: 7, labels: map[string]any{"kubernetes.io/os": "linux"}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	dir := t.TempDir()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	put(t, filepath.Join(dir, "ca.crt"), string(ca))
	put(t, filepath.Join(dir, "token"), s.token+"\n")
	return s, &Marks{&API{Server: s.URL, Dir: dir, Deadline: time.Minute, Pause: time.Millisecond}, "node1"}
}

func put(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.before != nil && s.before(w, r) {
		return
	}
	switch {
	case r.Header.Get("Authorization") != "Bearer "+s.token:
		refuse(w, http.StatusUnauthorized, "Unauthorized")
	case r.URL.Path != "/api/v1/nodes/node1":
		refuse(w, http.StatusNotFound, "not found")
	case r.Method == http.MethodGet:
		s.show(w)
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/json-patch+json":
		s.patch(w, r)
	default:
		refuse(w, http.StatusUnsupportedMediaType, r.Method)
	}
}

func refuse(w http.ResponseWriter, status int, message string) {
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"kind": "Status", "message": message})
}

func (s *server) show(w io.Writer) {
	_ = json.NewEncoder(w).Encode(map[string]any{
		"metadata": map[string]any{"name": "node1", "resourceVersion": fmt.Sprint(s.version), "labels": s.labels},
		"spec":     map[string]any{"taints": s.taints},
	})
}

func (s *server) patch(w http.ResponseWriter, r *http.Request) {
	var ops []struct {
		Op, Path string
		Value    any
	}
	if err := json.NewDecoder(r.Body).Decode(&ops); err != nil {
		s.t.Error(err)
	}
	if len(ops) == 0 || ops[0].Op != "test" || ops[0].Path != "/metadata/resourceVersion" {
		s.t.Errorf("a patch without a test of the version: %v", ops)
	}
	if ops[0].Value != fmt.Sprint(s.version) {
		refuse(w, http.StatusUnprocessableEntity, "the server rejected our request due to an error in our request")
		return
	}
	for _, op := range ops[1:] {
		if index, found := strings.CutPrefix(op.Path, "/spec/taints/"); found {
			var i int
			fmt.Sscan(index, &i)
			s.taints = slices.Delete(s.taints, i, i+1)
			continue
		}
		switch key := strings.ReplaceAll(strings.TrimPrefix(op.Path, "/metadata/labels/"), "~1", "/"); {
		case op.Path == "/metadata/labels":
			s.labels = op.Value.(map[string]any)
		case op.Op == "add":
			s.labels[key] = op.Value
		case op.Op == "remove":
			delete(s.labels, key)
		}
	}
	s.version++
	s.patches++
	s.show(w)
}

func taint(key, effect string) any { return map[string]any{"key": key, "effect": effect} }

func TestMarks(t *testing.T) {
	s, m := newServer(t)
	other := taint("dedicated", "NoSchedule")
	s.taints = []any{taint(kube.TaintOpen, "NoSchedule"), other, taint(kube.TaintOpen, "NoExecute")}
	step := func(what string, err error, label any, taints []any, patches int) {
		t.Helper()
		if err != nil || s.labels[kube.LabelClosed] != label || !reflect.DeepEqual(s.taints, taints) || s.patches != patches || s.labels["kubernetes.io/os"] != "linux" {
			t.Errorf("%s: %v; labels %v, taints %v, %d patches", what, err, s.labels, s.taints, s.patches)
		}
	}
	step("closed", m.Closed(t.Context()), "true", []any{other}, 1)
	step("closed again", m.Closed(t.Context()), "true", []any{other}, 1)
	step("open", m.Open(t.Context()), "false", []any{other}, 2)
	step("gone", m.Unlabel(t.Context()), nil, []any{other}, 3)
	s.taints = append(s.taints, taint(kube.TaintOpen, "NoSchedule"))
	step("removed", m.Clear(t.Context()), nil, []any{other}, 4)

	s.labels = nil
	if err := m.Closed(t.Context()); err != nil || s.labels[kube.LabelClosed] != "true" {
		t.Errorf("a node without labels: %v; %v", err, s.labels)
	}
}

// TestTwoAtOnce: a taint that another controller adds between our two calls is not
// the one that goes. Without the test of the version it would be: the control.
func TestTwoAtOnce(t *testing.T) {
	s, m := newServer(t)
	s.taints = []any{taint(kube.TaintOpen, "NoSchedule")}
	other := taint("disk-pressure", "NoSchedule")
	once := true
	s.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPatch && once {
			once = false
			s.version++
			s.taints = append([]any{other}, s.taints...)
		}
		return false
	}
	n, err := m.API.node(t.Context(), m.Node)
	if err != nil || n.untaint()[0]["path"] != "/spec/taints/0" {
		t.Fatalf("control: %v, %v; the first taint is the one that would go", err, n)
	}
	if err := m.Closed(t.Context()); err != nil || !reflect.DeepEqual(s.taints, []any{other}) {
		t.Errorf("%v; %v", err, s.taints)
	}
}

// TestRotated: the kubelet replaces the token, and the server refuses the old one.
func TestRotated(t *testing.T) {
	s, m := newServer(t)
	if err := m.Closed(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.token = "second"
	s.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer first" {
			put(t, filepath.Join(m.API.Dir, "token"), "second")
		}
		return false
	}
	if err := m.Open(t.Context()); err != nil || s.labels[kube.LabelClosed] != "false" {
		t.Errorf("%v; %v", err, s.labels)
	}
}

func TestAnswers(t *testing.T) {
	always := func(answer func(http.ResponseWriter, *http.Request)) func(*server, *Marks) {
		return func(s *server, _ *Marks) {
			s.before = func(w http.ResponseWriter, r *http.Request) bool { answer(w, r); return true }
		}
	}
	for _, tt := range []struct {
		name  string
		with  func(*server, *Marks)
		want  string
		tries bool // it may change: tried until the deadline
	}{
		{"forbidden", always(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 403, "no\x1b[2J rights") }), `answers 403 Forbidden: no\x1b[2J rights; the service account needs get and patch of nodes`, false},
		{"gone", always(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 404, strings.Repeat("x", 1000)) }), "404 Not Found: xxx", false},
		{"down", always(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 503, "") }), "503 Service Unavailable; given up", true},
		{"conflict", always(func(w http.ResponseWriter, _ *http.Request) { refuse(w, 409, "") }), "409 Conflict; given up", true},
		{"another node", always(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"metadata":{"name":"node2"}}`) }), `answers with "node2"`, true},
		{"no version", always(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"metadata":{"name":"node1"}}`) }), "names no resourceVersion", true},
		{"no JSON", always(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }), "answers no JSON", true},
		{"endless", always(func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < 9; i++ {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}), "larger than 8192 KiB", true},
		{"elsewhere", always(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/stolen" {
				t.Errorf("the token went elsewhere")
			}
			http.Redirect(w, r, "/stolen", http.StatusTemporaryRedirect)
		}), "307", false},
		{"no authority", func(_ *server, m *Marks) { put(t, filepath.Join(m.API.Dir, "ca.crt"), otherCA) }, "there is no certificate", true},
		{"no token", func(_ *server, m *Marks) { put(t, filepath.Join(m.API.Dir, "token"), " \n") }, "token is empty", true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, m := newServer(t)
			tt.with(s, m)
			if tt.tries {
				m.API.Deadline = 300 * time.Millisecond
			}
			err := m.Closed(t.Context())
			if err == nil || !strings.Contains(err.Error(), tt.want) && !(tt.tries && strings.Contains(err.Error(), "deadline")) {
				t.Errorf("%v", err)
			}
			if err != nil && len(err.Error()) > 700 {
				t.Errorf("%d bytes of error", len(err.Error()))
			}
		})
	}
}

const otherCA = "-----BEGIN NONSENSE-----\n-----END NONSENSE-----\n"

// TestStranger: a server that another authority vouches for gets no token.
func TestStranger(t *testing.T) {
	s, m := newServer(t)
	asked := false
	s.before = func(http.ResponseWriter, *http.Request) bool { asked = true; return false }
	if err := m.Closed(t.Context()); err != nil || !asked {
		t.Fatalf("control: %v, %v", err, asked)
	}
	asked = false
	_, stranger := newServer(t)
	// All servers of httptest have one certificate: name it wrongly instead.
	stranger.API.Server = strings.Replace(s.URL, "127.0.0.1", "localhost", 1)
	stranger.API.Deadline = 300 * time.Millisecond
	if err := stranger.Closed(t.Context()); err == nil || asked {
		t.Errorf("%v, asked %v", err, asked)
	}
}
