// Command pod starts containers through the Container Runtime Interface, as
// the kubelet does, in pods of the host's network.
//
//	pod run [FLAG]... IMAGE NAME ARGUMENT...   prints what the container says, and ends with its status
//	pod exec NAME ARGUMENT...
//	pod rm NAME
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	address = "unix:///run/containerd/containerd.sock"
	logs    = "/run/pods"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	status, err := command(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "pod:", err)
		os.Exit(125)
	}
	os.Exit(status)
}

func command(ctx context.Context, args []string) (int, error) {
	connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer connection.Close()
	c := client{cri.NewRuntimeServiceClient(connection)}
	if err := c.ready(ctx); err != nil {
		return 0, err
	}
	switch {
	case len(args) > 1 && args[0] == "run":
		return c.run(ctx, args[1:])
	case len(args) > 2 && args[0] == "exec":
		return c.exec(ctx, args[1], args[2:])
	case len(args) == 2 && args[0] == "rm":
		return 0, c.remove(ctx, args[1])
	}
	return 0, errors.New("run, exec or rm?")
}

type client struct{ cri.RuntimeServiceClient }

// ready waits until the interface is: later than containerd says so.
func (c client) ready(ctx context.Context) error {
	for {
		_, err := c.ListContainers(ctx, &cri.ListContainersRequest{})
		if err == nil || ctx.Err() != nil {
			return err
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func (c client) run(ctx context.Context, args []string) (int, error) {
	flags := flag.NewFlagSet("run", flag.ExitOnError)
	detach := flags.Bool("detach", false, "return as soon as it has started")
	privileged := flags.Bool("privileged", false, "without a profile, and with all capabilities")
	unconfined := flags.Bool("unconfined", false, "without a profile")
	namespace := flags.String("namespace", "default", "of the pod")
	annotation := flags.String("annotation", "", "`KEY=VALUE` of the pod")
	variable := flags.String("env", "", "`NAME=VALUE`")
	mount := flags.String("mount", "", "`FILE=PATH`")
	flags.Parse(args)
	image, name, args := flags.Arg(0), flags.Arg(1), flags.Args()[2:]

	profile := &cri.SecurityProfile{ProfileType: cri.SecurityProfile_RuntimeDefault}
	network := &cri.NamespaceOption{Network: cri.NamespaceMode_NODE, Pid: cri.NamespaceMode_CONTAINER}
	pod := &cri.PodSandboxConfig{
		Metadata:     &cri.PodSandboxMetadata{Name: name + "-pod", Namespace: *namespace, Uid: name},
		LogDirectory: logs,
		Annotations:  pair(*annotation),
		Linux: &cri.LinuxPodSandboxConfig{SecurityContext: &cri.LinuxSandboxSecurityContext{
			NamespaceOptions: network, Privileged: *privileged, Seccomp: profile,
		}},
	}
	sandbox, err := c.RunPodSandbox(ctx, &cri.RunPodSandboxRequest{Config: pod})
	if err != nil {
		return 0, err
	}
	if *unconfined {
		profile = &cri.SecurityProfile{ProfileType: cri.SecurityProfile_Unconfined}
	}
	config := &cri.ContainerConfig{
		Metadata: &cri.ContainerMetadata{Name: name}, Image: &cri.ImageSpec{Image: image}, Command: args, LogPath: name,
		Linux: &cri.LinuxContainerConfig{SecurityContext: &cri.LinuxContainerSecurityContext{
			NamespaceOptions: network, Privileged: *privileged, Seccomp: profile,
		}},
	}
	for k, v := range pair(*variable) {
		config.Envs = append(config.Envs, &cri.KeyValue{Key: k, Value: []byte(v)})
	}
	for from, to := range pair(*mount) {
		config.Mounts = append(config.Mounts, &cri.Mount{HostPath: from, ContainerPath: to, Readonly: true})
	}
	made, err := c.CreateContainer(ctx, &cri.CreateContainerRequest{PodSandboxId: sandbox.PodSandboxId, Config: config, SandboxConfig: pod})
	if err != nil {
		return 0, err
	}
	if _, err := c.StartContainer(ctx, &cri.StartContainerRequest{ContainerId: made.ContainerId}); err != nil || *detach {
		return 0, err
	}
	status, err := c.wait(ctx, made.ContainerId)
	if err != nil {
		return 0, err
	}
	if err := show(logs + "/" + name); err != nil {
		return 0, err
	}
	return status, c.remove(ctx, name)
}

func pair(s string) map[string]string {
	key, value, found := strings.Cut(s, "=")
	if !found {
		return nil
	}
	return map[string]string{key: value}
}

func (c client) wait(ctx context.Context, id string) (int, error) {
	for {
		r, err := c.ContainerStatus(ctx, &cri.ContainerStatusRequest{ContainerId: id})
		if err != nil {
			return 0, err
		}
		if r.Status.State == cri.ContainerState_CONTAINER_EXITED {
			return int(r.Status.ExitCode), nil
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// show prints a log, whose lines are: time, stream, F or P for a part of a
// line, text. A last part without a newline is a P too.
func show(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.SplitN(line, " ", 4)
		if len(f) < 4 {
			return fmt.Errorf("%s: %q", path, line)
		}
		out, text := os.Stdout, f[3]
		if f[1] == "stderr" {
			out = os.Stderr
		}
		if f[2] == "P" {
			text = strings.TrimSuffix(text, "\n")
		}
		fmt.Fprint(out, text)
	}
	return nil
}

// exec is what a probe of the kubelet does.
func (c client) exec(ctx context.Context, name string, args []string) (int, error) {
	list, err := c.ListContainers(ctx, &cri.ListContainersRequest{})
	if err != nil {
		return 0, err
	}
	for _, container := range list.Containers {
		if container.Metadata.Name == name && container.State == cri.ContainerState_CONTAINER_RUNNING {
			r, err := c.ExecSync(ctx, &cri.ExecSyncRequest{ContainerId: container.Id, Cmd: args, Timeout: 120})
			if err != nil {
				return 0, err
			}
			os.Stdout.Write(r.Stdout)
			os.Stderr.Write(r.Stderr)
			return int(r.ExitCode), nil
		}
	}
	return 0, fmt.Errorf("no container %s runs", name)
}

func (c client) remove(ctx context.Context, name string) error {
	list, err := c.ListPodSandbox(ctx, &cri.ListPodSandboxRequest{})
	if err != nil {
		return err
	}
	for _, pod := range list.Items {
		if pod.Metadata.Uid != name {
			continue
		}
		if _, err := c.StopPodSandbox(ctx, &cri.StopPodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			return err
		}
		if _, err := c.RemovePodSandbox(ctx, &cri.RemovePodSandboxRequest{PodSandboxId: pod.Id}); err != nil {
			return err
		}
	}
	return os.RemoveAll(logs + "/" + name)
}
