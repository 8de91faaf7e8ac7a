package report_test

import (
	"fmt"
	"io"
	"os"

	"github.com/afalg-policy/afalg-policy/internal/filter/profile"
	"github.com/afalg-policy/afalg-policy/internal/report"
	"github.com/afalg-policy/afalg-policy/internal/report/source"
	"github.com/afalg-policy/afalg-policy/internal/term"
)

// A profile is asked about AF_ALG, and the answers are written as text for
// programs.
func Example() {
	reader := source.Reader{Caps: profile.DefaultCaps()}
	in := reader.Read([]string{"../../testdata/profiles/closed.json"}, nil)
	r, err := report.Questions{}.Ask(in, &reader.Memo)
	if err != nil {
		fmt.Println(err)
		return
	}
	r.Text(&term.Printer{Out: os.Stdout, Notes: io.Discard})
	// Output:
	// ../../testdata/profiles/closed.json	amd64	runc, crun	AF_ALG	x86-64	socket, socket (upper bits), socketpair, io_uring_setup, io_uring_enter, io_uring_register	closed	ERRNO(1), ERRNO(38)
	// ../../testdata/profiles/closed.json	amd64	runc, crun	AF_ALG	i386	socket, socketcall, socketpair, socketcall (socketpair), io_uring_setup, io_uring_enter, io_uring_register	closed	ERRNO(38), ERRNO(97)
	// ../../testdata/profiles/closed.json	amd64	runc, crun	AF_ALG	x32	socket, socketpair, io_uring_setup, io_uring_enter, io_uring_register	closed	ERRNO(1), ERRNO(38)
	// verdict: closed: 1 input, 0 of them open; 0 errors, 0 warnings, 0 notes
}
