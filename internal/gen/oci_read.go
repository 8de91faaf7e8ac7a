package gen

import (
	"github.com/opencontainers/runtime-spec/specs-go"
)

// ReadSeccomp reads linux.seccomp of a config.json, nil if it has none, as all
// runtimes read it: what they would read in different ways is an error.
func ReadSeccomp(config []byte) (*specs.LinuxSeccomp, error) {
	c, err := parseOCI(config)
	if err != nil {
		return nil, &ConfigError{err}
	}
	p, err := c.profile()
	if err != nil {
		return nil, &ConfigError{err}
	}
	return p, nil
}

// profile decodes the profile of the config; nil if it has none.
func (c *ociConfig) profile() (*specs.LinuxSeccomp, error) {
	if c.seccomp == nil || isNull(&c.seccomp.Value) {
		return nil, nil
	}
	if err := c.exactKeys(&c.seccomp.Value); err != nil {
		return nil, err
	}
	var p specs.LinuxSeccomp
	if err := c.decode(&c.seccomp.Value, &p); err != nil {
		return nil, c.fail(c.seccomp.Value.StartOffset, "linux.seccomp: %w", err)
	}
	return &p, nil
}
