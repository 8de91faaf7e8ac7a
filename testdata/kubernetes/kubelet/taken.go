package main

// This file is replaced by the functions of Kubernetes when the program is built:
// internal/kube takes them from the module.
