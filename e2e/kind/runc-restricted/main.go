// Command runc-restricted stands in front of runc for machines that hold back some capabilities. Docker asks for every
// capability in existence when a container is privileged, and runc refuses what it cannot give. This program takes
// out of the OCI specification what the machine lacks, and what only CAP_SYS_RESOURCE may set: rlimits and an
// oom_score_adj lower than the current one. Where nothing is lacking it changes nothing.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// The kernel's capabilities in the order of their numbers (linux/capability.h).
var capabilities = strings.Fields(`CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
	LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT
	SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE
	AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE`)

// missing returns the capabilities that a process with the given effective set (hexadecimal, as in
// /proc/self/status) does not have.
func missing(effective string) (map[string]bool, error) {
	set, err := strconv.ParseUint(effective, 16, 64)
	if err != nil {
		return nil, err
	}
	lacking := map[string]bool{}
	for number, name := range capabilities {
		if set&(1<<number) == 0 {
			lacking["CAP_"+name] = true
		}
	}
	return lacking, nil
}

// restrict edits the process part of an OCI specification in place.
func restrict(process map[string]any, lacking map[string]bool, oomScore int) {
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for kind, set := range sets {
			list, _ := set.([]any)
			sets[kind] = slices.DeleteFunc(list, func(c any) bool { name, _ := c.(string); return lacking[name] })
		}
	}
	if !lacking["CAP_SYS_RESOURCE"] {
		return
	}
	delete(process, "rlimits")
	if wanted, ok := process["oomScoreAdj"].(float64); ok && int(wanted) < oomScore {
		process["oomScoreAdj"] = oomScore
	}
}

// target finds the file that the command line makes runc read, and the key in it that holds the process ("" is the
// whole file); an empty path means that this command starts no process.
func target(args []string) (path, key string) {
	command, bundle, process := "", ".", ""
	for i, arg := range args {
		name, value, joined := strings.Cut(arg, "=")
		if !joined && i+1 < len(args) {
			value = args[i+1]
		}
		switch name {
		case "create", "run", "restore", "exec":
			if command == "" {
				command = name
			}
		case "--bundle", "-b":
			bundle = value
		case "--process", "-p":
			process = value
		}
	}
	switch command {
	case "create", "run", "restore":
		return filepath.Join(bundle, "config.json"), "process"
	case "exec":
		return process, ""
	}
	return "", ""
}

func edit(path, key string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	_, rest, _ := strings.Cut(string(status), "CapEff:")
	effective, _, _ := strings.Cut(rest, "\n")
	lacking, err := missing(strings.TrimSpace(effective))
	if err != nil || len(lacking) == 0 {
		return err
	}
	score, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		return err
	}
	oomScore, err := strconv.Atoi(strings.TrimSpace(string(score)))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process := spec
	if key != "" {
		process, _ = spec[key].(map[string]any)
	}
	restrict(process, lacking, oomScore)
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func main() {
	fail := func(err error) {
		fmt.Fprintln(os.Stderr, "runc-restricted:", err)
		os.Exit(127)
	}
	if path, key := target(os.Args[1:]); path != "" {
		if err := edit(path, key); err != nil {
			fail(err)
		}
	}
	// This program has another name: PATH finds the real one.
	runc, err := exec.LookPath("runc")
	if err == nil {
		err = syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ())
	}
	fail(err)
}
