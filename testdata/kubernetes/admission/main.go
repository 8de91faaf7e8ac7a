// Command admission decides about pods as a Kubernetes API server does, by its own
// code and in this process: admission policies, Pod Security, and the validation of
// pods and of the policies themselves. It reads a question as JSON from standard
// input and writes the answer to standard output.
package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// question is what a cluster has, and what is asked of it.
type question struct {
	Objects []string  `json:"objects"` // texts in YAML, one object each
	Cases   []request `json:"cases"`
}

// request brings a pod.
type request struct {
	Pod         json.RawMessage   `json:"pod"`
	Old         json.RawMessage   `json:"old,omitempty"` // for an update
	Namespace   string            `json:"namespace"`
	Labels      map[string]string `json:"labels,omitempty"` // of the namespace
	Groups      []string          `json:"groups,omitempty"` // of whoever asks
	Operation   string            `json:"operation"`
	Subresource string            `json:"subresource,omitempty"`
}

// answer says what is wrong with the objects, and what becomes of each request.
type answer struct {
	Invalid []string  `json:"invalid"`
	Case    []verdict `json:"case"`
}

type verdict struct {
	Pod     json.RawMessage `json:"pod"` // as it is stored
	Denied  []string        `json:"denied,omitempty"`
	Warned  []string        `json:"warned,omitempty"`
	Audited []string        `json:"audited,omitempty"`
	// Invalid is what the API server finds wrong with the pod by itself.
	Invalid string `json:"invalid,omitempty"`
	// Restricted is what Pod Security has against it at the level restricted.
	Restricted string `json:"restricted,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	var q question
	if err := json.NewDecoder(os.Stdin).Decode(&q); err != nil {
		return err
	}
	c := newCluster()
	var a answer
	for _, text := range q.Objects {
		problems, err := c.add([]byte(text))
		if err != nil {
			return err
		}
		a.Invalid = append(a.Invalid, problems...)
	}
	if err := c.compile(); err != nil {
		return err
	}
	for i, r := range q.Cases {
		v, err := c.decide(r)
		if err != nil {
			return fmt.Errorf("case %d: %w", i, err)
		}
		a.Case = append(a.Case, v)
	}
	return json.NewEncoder(os.Stdout).Encode(a)
}
