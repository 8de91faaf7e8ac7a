package unit

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"time"
)

// ErrNoManager means that no systemd runs here that could be asked.
var ErrNoManager = errors.New("no systemd runs here")

// properties are asked of every unit: its restrictions, the files that set
// them, and the settings that show which processes a filter stops.
var properties = []string{
	"Id", "LoadState", "Transient", "RestrictAddressFamilies", "FragmentPath", "DropInPaths",
	"MainPID", "NeedDaemonReload", "User", "CapabilityBoundingSet", "NoNewPrivileges",
	"LockPersonality", "MemoryDenyWriteExecute", "PrivateDevices", "ProtectClock", "ProtectHostname",
	"ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "RestrictNamespaces",
	"RestrictRealtime", "RestrictSUIDSGID", "SystemCallArchitectures", "SystemCallFilter",
}

// types are the types of units that start processes, as systemctl names them.
const types = "service,socket,mount,swap"

// Ask asks the manager of this host about all its units, loaded or not. It
// returns text for Parse. Where our own drop-ins are a part of a list, the list
// is that of the unit's other files.
func Ask(ctx context.Context) ([]byte, error) { return ask(ctx, withoutOurs) }

// AskAll is Ask with our own drop-ins: the settings in force. It includes the
// units that end with whoever made them.
func AskAll(ctx context.Context) ([]byte, error) {
	return ask(ctx, func(block string) (string, error) { return block, nil })
}

func ask(ctx context.Context, edit func(block string) (string, error)) ([]byte, error) {
	if info, err := os.Stat("/run/systemd/system"); err != nil || !info.IsDir() {
		return nil, ErrNoManager
	}
	names, err := list(ctx)
	if err != nil {
		return nil, err
	}
	var blocks []string
	for chunk := range slices.Chunk(names, 200) { // a command line has its limits
		shown, err := systemctl(ctx, append([]string{"show", "--property=" + strings.Join(properties, ","), "--"}, chunk...)...)
		if err != nil {
			return nil, err
		}
		for block := range strings.SplitSeq(strings.TrimSpace(shown), "\n\n") {
			block, err := edit(block)
			if err != nil {
				return nil, err
			}
			if block != "" {
				blocks = append(blocks, block)
			}
		}
	}
	return []byte(strings.Join(blocks, "\n\n") + "\n"), nil
}

// list names every unit that is loaded or has a file. A template is named by an
// instance.
func list(ctx context.Context) ([]string, error) {
	var names []string
	for _, command := range [][]string{{"list-unit-files"}, {"list-units", "--all"}} {
		out, err := systemctl(ctx, append(command, "--type="+types, "--no-legend", "--plain", "--full", "--no-pager")...)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(out) {
			if words := strings.Fields(line); len(words) > 0 {
				names = append(names, strings.Replace(words[0], "@.", "@"+TemplateInstance+".", 1))
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// withoutOurs returns a block of systemctl show as it would be without our
// drop-ins, or "" for a unit that ends with whoever made it.
func withoutOurs(block string) (string, error) {
	values := map[string]string{}
	for line := range strings.Lines(block) {
		key, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		values[key] = value
	}
	if values["Transient"] == "yes" {
		return "", nil
	}
	dropIns := strings.Fields(values["DropInPaths"])
	ours := func(p string) bool { return path.Base(p) == Closure }
	if !slices.ContainsFunc(dropIns, ours) || values["LoadState"] == "not-found" {
		return block, nil
	}
	section, err := Section(values["Id"])
	if err != nil {
		return "", err
	}
	files := slices.DeleteFunc(dropIns, ours)
	if own := values["FragmentPath"]; own != "" { // without one the kernel made it, as a mount
		files = append([]string{own}, files...)
	}
	own, err := OwnFamilies(section, files, os.ReadFile)
	if err != nil {
		return "", fmt.Errorf("%s has a drop-in of this program, and its own settings cannot be read: %w", values["Id"], err)
	}
	was := "RestrictAddressFamilies=" + values["RestrictAddressFamilies"]
	block = strings.Replace("\n"+block+"\n", "\n"+was+"\n", "\nRestrictAddressFamilies="+own.String()+"\n", 1)
	return strings.Trim(block, "\n"), nil
}

// askTime bounds one question; a busy host is slow to answer.
const askTime = time.Minute

func systemctl(ctx context.Context, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "systemctl", args...)
	cmd.WaitDelay, cmd.Env = time.Second, append(os.Environ(), "LC_ALL=C")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		err = fmt.Errorf("systemctl %s took too long", args[0])
	case err != nil && errs.Len() > 0:
		err = fmt.Errorf("systemctl %s: %s", args[0], strings.TrimSpace(errs.String()))
	case err != nil:
		err = fmt.Errorf("systemctl %s: %w", args[0], err)
	}
	return out.String(), err
}

// OwnFamilies returns the list that files of a unit set together, read as
// systemd reads them: the unit's own first, then drop-ins in their order.
func OwnFamilies(section string, files []string, read func(string) ([]byte, error)) (Families, error) {
	own := setting{Families: Unrestricted()}
	for _, file := range files {
		text, err := read(file)
		if err != nil {
			return Families{}, err
		}
		for value := range assignments(string(text), section, "RestrictAddressFamilies") {
			own.assign(value)
		}
	}
	slices.Sort(own.Names)
	return own.Families, nil
}
