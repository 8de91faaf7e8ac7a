package report

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/afalg-policy/afalg-policy/internal/testing/browser"
)

type page interface{ HTML(io.Writer) error }

func htmlOf(t *testing.T, p page) string {
	t.Helper()
	var text bytes.Buffer
	if err := p.HTML(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func htmlFile(t *testing.T, html string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "page.html")
	if err := os.WriteFile(path, []byte(html), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// The pages stand in a browser as they are meant to: on a telephone and on a desk,
// by day, by night and on paper. Pictures are kept with -artifacts.
func TestPagesInABrowser(t *testing.T) {
	type one struct {
		name, title string
		page        page
		header      []string // of the first table
	}
	p := browser.Start(t)
	for _, tt := range []one{
		{"host", "afalg-policy doctor: node-7", exampleDoctor(t), []string{
			"Subjects that may use the same", "hash", "skcipher", "aead", "rng", "AF_RXRPC", "AF_RDS", "AF_KEY", "NETLINK_XFRM", "TCP_ULP", "user namespaces", "TIPC"}},
		{"fleet", "afalg-policy doctor: 4 hosts", exampleFleet(t), []string{
			"What", "open", "unknown", "allowed", "left open", "closed, not proved", "proved closed", "not reported"}},
	} {
		p.Open(htmlFile(t, htmlOf(t, tt.page)))
		if d, ok := tt.page.(*Doctor); ok {
			compareMatrix(t, p, d)
		}
		for _, s := range []browser.Sight{
			{Width: 400, Height: 800}, {Width: 1400, Height: 900}, {Width: 1400, Height: 900, Dark: true}, {Width: 794, Height: 1123, Print: true},
		} {
			name := fmt.Sprintf("%s-%d-dark-%t-print-%t", tt.name, s.Width, s.Dark, s.Print)
			p.See(s)
			var seen struct {
				Title, Ground string
				Header        []string
				Inner, Scroll int
				Wide          []string
				Small         int // texts that nobody can read
			}
			p.Eval(`(() => {
				const all = [...document.querySelectorAll("body *")];
				return {
					title: document.title, ground: getComputedStyle(document.body).backgroundColor,
					header: [...document.querySelector("table").querySelectorAll("thead th")].map(e => e.textContent),
					inner: innerWidth, scroll: document.documentElement.scrollWidth,
					wide: all.filter(e => !e.closest(".wide, pre") && e.getBoundingClientRect().right > innerWidth).map(e => e.tagName + " " + e.className),
					small: all.filter(e => e.innerText && parseFloat(getComputedStyle(e).fontSize) < 11).length,
				}
			})()`, &seen)
			if seen.Title != tt.title {
				t.Errorf("%s: title %q, want %q", name, seen.Title, tt.title)
			}
			if diff := cmp.Diff(tt.header, seen.Header); diff != "" {
				t.Errorf("%s: the first table: -want +got:\n%s", name, diff)
			}
			if seen.Inner != s.Width || seen.Scroll > seen.Inner || len(seen.Wide) > 0 {
				t.Errorf("%s: the page is %d wide in a window of %d, which is to be %d; beyond its edge: %q", name, seen.Scroll, seen.Inner, s.Width, seen.Wide)
			}
			ground := map[bool]string{false: "rgb(246, 247, 248)", true: "rgb(18, 20, 23)"}[s.Dark]
			if s.Print {
				ground = "rgb(255, 255, 255)"
			}
			if seen.Ground != ground {
				t.Errorf("%s: the ground is %s, want %s: the style does not apply", name, seen.Ground, ground)
			}
			if seen.Small > 0 && !s.Print {
				t.Errorf("%s: %d texts are smaller than 11 pixels", name, seen.Small)
			}
			if err := os.WriteFile(filepath.Join(t.ArtifactDir(), name+".png"), p.Screenshot(), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if told := p.Told(); len(told) > 0 {
			t.Errorf("%s: the browser complains: %q", tt.name, told)
		}
		if asked := p.Asked(); len(asked) != 1 {
			t.Errorf("%s: the page asks for more than itself: %q", tt.name, asked)
		}
	}
}

// compareMatrix: each cell says its state in words too, for those who see no colours,
// or nothing.
func compareMatrix(t *testing.T, p *browser.Page, d *Doctor) {
	t.Helper()
	var want, got [][]string
	for _, r := range d.Matrix.Rows {
		var row []string
		for _, c := range r.Cells {
			text := c.symbol(false) + c.State
			if c.State == Allowed {
				text = "allowed by " + c.Rule
			}
			row = append(row, text)
		}
		want = append(want, row)
	}
	p.Eval(`[...document.querySelectorAll(".matrix tbody tr")].map(r => [...r.querySelectorAll("td")].map(c => c.textContent))`, &got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the matrix: -want +got:\n%s", diff)
	}
}

// attacks are names that try to become a part of the page, or to lead the eye
// astray.
var attacks = []string{
	`<script>console.log("ran")</script>`,
	`"><img src=x onerror='console.log("ran")'>`,
	`</style></title></svg><script>console.log("ran")</script>`,
	`' onmouseover='console.log("ran")' autofocus onfocus='console.log("ran")' tabindex=1 x='`,
	`<link rel=stylesheet href=stolen.css><iframe src=stolen.html></iframe><meta http-equiv=refresh content="0;url=stolen.html">`,
	`<style>@import "stolen.css"; body { background: url(stolen.png) }</style>`,
	`{{.Report}}<!-- --!><base href=//example.invalid/><form action=stolen>`,
	"web\u202e\u2066gnihton\u0000\x1b[2J\r\n\u2028",
}

// hostile fills each text of a value with all attacks.
func hostile[T any](v T) T {
	fillTexts(reflect.ValueOf(&v).Elem(), strings.Join(attacks, ""))
	return v
}

func fillTexts(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Struct:
		for i := range v.NumField() {
			fillTexts(v.Field(i), text)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fillTexts(v.Index(i), text)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillTexts(v.Elem(), text)
	}
}

// Whatever the names of executables, units and containers are, the page runs
// nothing, loads nothing, and shows them in their order. The controls are pages of
// another hand: the first shows that the attacks work, the second that what the
// page forbids stops them even where nothing is escaped.
func TestHostileNamesInAPage(t *testing.T) {
	p := browser.Start(t)
	p.See(browser.Sight{Width: 1400, Height: 900})
	open := func(html string) (ran int, told, asked []string) {
		p.Open(htmlFile(t, html))
		told, asked = p.Told(), p.Asked()
		for _, line := range told {
			if strings.Contains(line, "console:") {
				ran++
			}
		}
		return ran, told, asked
	}
	attack := strings.Join(attacks[:6], "") // without what leads to another page
	attack = strings.ReplaceAll(attack, "<meta http-equiv=refresh", "<meta")
	if ran, told, asked := open("<!DOCTYPE html><title>x</title><p>" + attack); ran < 3 || len(asked) < 5 {
		t.Errorf("the attacks do not work by themselves: %q, %q", told, asked)
	}
	head := `<!DOCTYPE html><meta http-equiv="Content-Security-Policy" content="` + contentPolicy(pageStyle) + `"><title>x</title><p>`
	if ran, told, _ := open(head + attack); ran > 0 || len(told) == 0 {
		t.Errorf("what the page forbids stops no attack: %q", told)
	}
	d, f := hostile(*exampleDoctor(t)), hostile(*exampleFleet(t))
	for name, page := range map[string]page{"host": &d, "fleet": &f} {
		html := htmlOf(t, page)
		if ran, told, asked := open(html); ran > 0 || len(told) > 0 || len(asked) != 1 {
			t.Errorf("%s: %d attacks ran: %q, %q", name, ran, told, asked)
		}
		var elements []string
		p.Eval(`[...document.querySelectorAll("script, img, link, iframe, base, form, style ~ style, [onerror], [onfocus], [onmouseover]")].map(e => e.outerHTML.slice(0, 80))`, &elements)
		if len(elements) > 0 {
			t.Errorf("%s: the names became elements: %q", name, elements)
		}
		if i := strings.IndexAny(html, "\u202e\u2066\x00\x1b\u2028"); i >= 0 {
			t.Errorf("%s: a name steers what shows it: %q", name, html[max(i-80, 0):i+10])
		}
	}
}
