// Package browser opens pages in a headless Chromium, and says what became of them.
// It speaks the browser's own protocol over a pipe: messages of JSON, each of which
// a zero byte ends.
package browser

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const program = "chromium-headless-shell"

// patience is how long a browser may live: what it never answers ends with it.
const patience = 2 * time.Minute

// Page is a window of a browser. Its methods end the test with what goes wrong.
type Page struct {
	t       testing.TB
	to      io.Writer
	from    *bufio.Reader
	session string
	last    int
	told    []string // by the console, and by the browser of the page
	asked   []string // addresses that the page wanted
	loaded  map[string]bool
}

// Sight is how a page is seen.
type Sight struct {
	Width, Height int
	Dark, Print   bool
}

// Start starts a browser, which ends with the test.
func Start(t testing.TB) *Page {
	t.Helper()
	if _, err := exec.LookPath(program); err != nil {
		t.Fatalf("%v: run scripts/install test", err)
	}
	p := start(t)
	var target struct{ TargetID, SessionID string }
	p.call("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	p.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	p.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network"} {
		p.call(domain+".enable", nil, nil)
	}
	p.call("Page.setLifecycleEventsEnabled", map[string]any{"enabled": true}, nil)
	return p
}

// Open goes to a file of HTML. What other pages told is forgotten.
func (p *Page) Open(path string) {
	p.t.Helper()
	absolute, err := filepath.Abs(path)
	if err != nil {
		p.t.Fatal(err)
	}
	p.told, p.asked = nil, nil
	var went struct{ LoaderID, ErrorText string }
	p.call("Page.navigate", map[string]any{"url": "file://" + absolute}, &went)
	if went.ErrorText != "" {
		p.t.Fatalf("%s: %s", path, went.ErrorText)
	}
	for !p.loaded[went.LoaderID] {
		p.next()
	}
}

// See changes how pages are seen.
func (p *Page) See(s Sight) {
	p.t.Helper()
	scheme, media := "light", "screen"
	if s.Dark {
		scheme = "dark"
	}
	if s.Print {
		media = "print"
	}
	p.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": s.Width, "height": s.Height, "deviceScaleFactor": 1, "mobile": false}, nil)
	p.call("Emulation.setEmulatedMedia", map[string]any{"media": media, "features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// start runs the browser, with a deadline for all that a test asks of it. It takes
// no sandbox of its own: tests run as root, and the pages are ours.
func start(t testing.TB) *Page {
	t.Helper()
	theirs, to := pipe(t)
	from, mine := pipe(t)
	home := t.TempDir()
	cmd := exec.Command(program, "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--hide-scrollbars", "--user-data-dir="+home, "--remote-debugging-pipe")
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	cmd.ExtraFiles = []*os.File{theirs, mine}             // as descriptors 3 and 4
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // the program may be a script that starts the browser
	var notes strings.Builder
	cmd.Stderr = &notes
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	theirs.Close()
	mine.Close()
	p := &Page{t: t, to: to, from: bufio.NewReader(from), loaded: map[string]bool{}}
	deadline := time.AfterFunc(patience, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	t.Cleanup(func() {
		deadline.Stop()
		p.session = ""
		p.send("Browser.close", nil) // it may have ended by itself
		to.Close()
		io.Copy(io.Discard, from)
		from.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("%s: %v\n%s", program, err, notes.String())
		}
	})
	return p
}

func pipe(t testing.TB) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	return r, w
}

// request is what the browser is asked.
type request struct {
	ID      int    `json:"id"`
	Session string `json:"sessionId,omitempty"`
	Method  string `json:"method"`
	Params  any    `json:"params,omitempty"`
}

// answer is what it says: the result of a request, or an event.
type answer struct {
	ID     int             `json:"id"`
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
	Result json.RawMessage `json:"result"`
	Error  *struct {
		Message string `json:"message"`
	} `json:"error"`
}

func (p *Page) send(method string, params any) error {
	p.last++
	text, err := json.Marshal(request{p.last, p.session, method, params})
	if err != nil {
		return err
	}
	_, err = p.to.Write(append(text, 0))
	return err
}

// call asks the browser, and waits for the answer.
func (p *Page) call(method string, params, result any) {
	p.t.Helper()
	if err := p.send(method, params); err != nil {
		p.t.Fatalf("%s: %v", method, err)
	}
	for id := p.last; ; {
		m := p.next()
		if m.ID != id {
			continue
		}
		if m.Error != nil {
			p.t.Fatalf("%s: %s", method, m.Error.Message)
		}
		if result != nil {
			if err := json.Unmarshal(m.Result, result); err != nil {
				p.t.Fatalf("%s: %v", method, err)
			}
		}
		return
	}
}

// next reads a message, and keeps what it says about the page.
func (p *Page) next() answer {
	p.t.Helper()
	text, err := p.from.ReadBytes(0)
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = errors.New("the browser has ended")
		}
		p.t.Fatal(err)
	}
	var m answer
	if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
		p.t.Fatalf("%v: %s", err, text)
	}
	p.note(m)
	return m
}

// note keeps what an event says about the page.
func (p *Page) note(m answer) {
	p.t.Helper()
	var event struct {
		Entry            struct{ Level, Text string }
		Args             []struct{ Value any }
		ExceptionDetails struct{ Text string }
		Request          struct{ URL string }
		Name, LoaderID   string
	}
	switch m.Method {
	case "Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Network.requestWillBeSent", "Page.lifecycleEvent":
		if err := json.Unmarshal(m.Params, &event); err != nil {
			p.t.Fatalf("%s: %v", m.Method, err)
		}
	}
	switch m.Method {
	case "Log.entryAdded":
		p.told = append(p.told, event.Entry.Level+": "+event.Entry.Text)
	case "Runtime.consoleAPICalled":
		p.told = append(p.told, fmt.Sprint("console: ", event.Args))
	case "Runtime.exceptionThrown":
		p.told = append(p.told, "exception: "+event.ExceptionDetails.Text)
	case "Network.requestWillBeSent":
		p.asked = append(p.asked, event.Request.URL)
	case "Page.lifecycleEvent":
		if event.Name == "load" {
			p.loaded[event.LoaderID] = true
		}
	}
}

// Eval is what an expression of JavaScript is in the page, which need not allow
// scripts of its own. The result is made of JSON.
func (p *Page) Eval(expression string, result any) {
	p.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Text string }
	}
	p.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true}, &answer)
	if answer.ExceptionDetails != nil {
		p.t.Fatalf("%s: %s", expression, answer.ExceptionDetails.Text)
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
}

// Told is what the console and the browser said of the page so far: errors,
// warnings, and what a script logged.
func (p *Page) Told() []string {
	p.t.Helper()
	p.settle()
	return p.told
}

// Asked lists the addresses that the page wanted so far, its own first.
func (p *Page) Asked() []string {
	p.t.Helper()
	p.settle()
	return p.asked
}

// settle lets the page be drawn, and what that brings about be told.
func (p *Page) settle() {
	p.t.Helper()
	var drawn bool
	p.Eval("new Promise(done => requestAnimationFrame(() => setTimeout(() => done(true), 50)))", &drawn)
}

// Screenshot is the whole page as a PNG.
func (p *Page) Screenshot() []byte {
	p.t.Helper()
	var shot struct{ Data string }
	p.call("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		p.t.Fatal(err)
	}
	return png
}
