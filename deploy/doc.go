// Package deploy holds what a cluster is given: a Helm chart, and the bases of
// Kustomize that render the same. Nothing imports it; its tests render both.
package deploy
