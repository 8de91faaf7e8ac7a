//go:build race

package agent

// memoryFactor is what the race detector makes of memory.
const memoryFactor = 12
