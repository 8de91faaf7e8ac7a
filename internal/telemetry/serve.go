package telemetry

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"sync"
	"time"
)

// Limits of a scraper. One that keeps its connection and asks nothing has to
// connect again.
const (
	maxConnections = 8
	maxHeader      = 4096 // net/http adds as many
	readTimeout    = 5 * time.Second
	writeTimeout   = 10 * time.Second
	endTimeout     = 2 * time.Second
)

// ListenAndServe serves an address until the context ends.
func (m *Metrics) ListenAndServe(ctx context.Context, address string) error {
	l, err := Listen(address)
	if err != nil {
		return err
	}
	return m.Serve(ctx, l)
}

// Serve answers GET /metrics, and nothing else, until the context ends. It
// closes the listener.
func (m *Metrics) Serve(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", m.Handler())
	server := &http.Server{
		Handler:        mux,
		MaxHeaderBytes: maxHeader,
		ReadTimeout:    readTimeout, // and between requests
		WriteTimeout:   writeTimeout,
		// The log of net/http would let any client write to ours.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
		defer cancel()
		if server.Shutdown(end) != nil {
			server.Close()
		}
	})
	err := server.Serve(&limited{Listener: l, free: make(chan struct{}, maxConnections)})
	if stop() {
		return err
	}
	<-ended
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// limited bounds the connections at a time. It closes a further one at once:
// that does not wait in a queue which others need too.
type limited struct {
	net.Listener
	free chan struct{}
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		select {
		case l.free <- struct{}{}:
			return &counted{Conn: c, free: sync.OnceFunc(func() { <-l.free })}, nil
		default:
			c.Close()
		}
	}
}

type counted struct {
	net.Conn
	free func()
}

func (c *counted) Close() error {
	defer c.free()
	return c.Conn.Close()
}
