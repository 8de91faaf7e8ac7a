package node

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/afalg-policy/afalg-policy/internal/bounded"
	"github.com/afalg-policy/afalg-policy/internal/hosterr"
	"github.com/afalg-policy/afalg-policy/internal/printable"
)

const (
	maxToken = 64 << 10
	// maxCA is for clusters with several authorities.
	maxCA = 1 << 20
	// maxAnswer is for a node: status.images is most of it.
	maxAnswer = 8 << 20
	// maxSaid is how much of an error of the server is repeated.
	maxSaid = 300
)

// API is the API server, as a pod reaches it.
type API struct {
	Server string // https://HOST:PORT
	// Dir has the files token and ca.crt. The kubelet replaces both now and then:
	// they are read for each call.
	Dir string
	// Deadline bounds one change with all its attempts, Pause is before the second
	// attempt, and doubles.
	Deadline, Pause time.Duration
}

// InCluster finds the API server by the variables that each container has.
func InCluster(dir string) (*API, error) {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return nil, hosterr.Errorf("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set: this is no container of Kubernetes")
	}
	return &API{Server: "https://" + net.JoinHostPort(host, port), Dir: dir, Deadline: 30 * time.Second, Pause: time.Second}, nil
}

// statusError is an answer other than yes.
type statusError struct {
	what   string
	status int
	said   string
}

func (e *statusError) Error() string {
	text := fmt.Sprintf("%s: the API server answers %d %s", e.what, e.status, http.StatusText(e.status))
	if e.said != "" {
		text += ": " + e.said
	}
	switch e.status {
	case http.StatusUnauthorized:
		text += "; it does not accept the token"
	case http.StatusForbidden:
		text += "; the service account needs get and patch of nodes: set nodeUpdate.enabled of the chart, or give this container no token"
	}
	return text
}

// final reports whether the same call would get the same answer.
func (e *statusError) final() bool {
	switch e.status {
	case http.StatusConflict, http.StatusUnprocessableEntity, // somebody was faster
		http.StatusUnauthorized, // the token has just been replaced
		http.StatusTooManyRequests, http.StatusRequestTimeout:
		return false
	}
	return e.status < 500
}

// retry does something until it succeeds, cannot, or the deadline is over.
func (a *API) retry(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, a.Deadline)
	defer cancel()
	for pause := a.Pause; ; pause *= 2 {
		err := do(ctx)
		var answer *statusError
		if err == nil || errors.As(err, &answer) && answer.final() {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w; given up after %v", err, a.Deadline)
		case <-time.After(pause):
		}
	}
}

func (a *API) node(ctx context.Context, name string) (*node, error) {
	text, err := a.call(ctx, http.MethodGet, name, "", nil)
	if err != nil {
		return nil, err
	}
	var n node
	if err := json.Unmarshal(text, &n); err != nil {
		return nil, fmt.Errorf("read the node %s: the API server answers no JSON: %w", name, err)
	}
	if n.Metadata.Name != name {
		return nil, fmt.Errorf("read the node %s: the API server answers with %q", name, n.Metadata.Name)
	}
	return &n, nil
}

func (a *API) patch(ctx context.Context, name string, ops []operation) error {
	body, err := json.Marshal(ops)
	if err != nil {
		return err
	}
	_, err = a.call(ctx, http.MethodPatch, name, "application/json-patch+json", body)
	return err
}

func (a *API) call(ctx context.Context, method, name, kind string, body []byte) ([]byte, error) {
	what := strings.ToLower(method) + " node " + name
	client, token, err := a.client()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer client.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, method, a.Server+"/api/v1/nodes/"+url.PathEscape(name), bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	request.Header.Set("Authorization", "Bearer "+token)
	request.Header.Set("Accept", "application/json")
	if kind != "" {
		request.Header.Set("Content-Type", kind)
	}
	answer, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	defer answer.Body.Close()
	text, err := bounded.ReadAll(answer.Body, maxAnswer)
	if err != nil {
		return nil, fmt.Errorf("%s: read the answer: %w", what, err)
	}
	if answer.StatusCode/100 != 2 {
		return nil, &statusError{what, answer.StatusCode, said(text)}
	}
	return text, nil
}

// said is the message of a Status, or nothing.
func said(text []byte) string {
	var status struct{ Message string }
	if json.Unmarshal(text, &status) != nil {
		return ""
	}
	return printable.Cut(status.Message, maxSaid)
}

// client trusts the cluster's authority alone, uses no proxy, and follows no
// redirection: the token is for the API server.
func (a *API) client() (*http.Client, string, error) {
	token, err := a.file("token", maxToken)
	if err != nil {
		return nil, "", err
	}
	ca, err := a.file("ca.crt", maxCA)
	if err != nil {
		return nil, "", err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, "", fmt.Errorf("%s: there is no certificate in it", filepath.Join(a.Dir, "ca.crt"))
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}, strings.TrimSpace(string(token)), nil
}

func (a *API) file(name string, limit int64) ([]byte, error) {
	p := filepath.Join(a.Dir, name)
	text, err := bounded.ReadFile(p, limit)
	if err != nil {
		return nil, fmt.Errorf("read what the kubelet gave this container: %w", err)
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil, fmt.Errorf("%s is empty", p)
	}
	return text, nil
}
