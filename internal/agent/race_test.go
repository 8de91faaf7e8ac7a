//go:build race

package agent

// memoryFactor is by how much the race detector multiplies memory.
const memoryFactor = 12
