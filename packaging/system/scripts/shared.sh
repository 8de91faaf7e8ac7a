#!/bin/sh
set -e

# Prints the command that takes back each thing that leads to this program.
leads_here() {
	for record in /var/lib/afalg-policy/installed/*.json; do
		[ -e "$record" ] || continue
		platform=${record##*/}
		platform=${platform%.json}
		# Containers are granted something by the agent, so it goes last.
		[ "$platform" = agent ] || echo "  afalg-policy uninstall $platform"
	done
	if [ -e /var/lib/afalg-policy/installed/agent.json ]; then
		echo "  afalg-policy uninstall agent"
	fi
	if [ -e /sys/fs/bpf/afalg-policy ] && [ ! -e /var/lib/afalg-policy/installed/lsm.json ]; then
		echo "  afalg-policy lsm unload"
	fi
}

# Containers start by this program where it is installed, and would not start
# without it. To take it back here would leave daemons with a configuration that
# they read before, until somebody restarts them: no script may choose that moment.
refuse_while_in_use() {
	commands=$(leads_here)
	[ -n "$commands" ] || return 0
	cat >&2 <<-TEXT
		afalg-policy is not removed: this host's containers or services start by it,
		and would not start without it. Take that back first:
		$commands
		Each command prints what to restart. Then remove the package again.
	TEXT
	exit 1
}

with_systemd() {
	if [ -d /run/systemd/system ]; then
		"$@"
	fi
}

# The agent hands its containers to its successor: systemd keeps their descriptors.
# The programs in the kernel are replaced with no moment without.
use_new_program() {
	systemctl daemon-reload
	systemctl try-restart afalg-policy-agent.service ||
		echo 'afalg-policy: the agent did not restart: see "systemctl status afalg-policy-agent"' >&2
	if systemctl --quiet is-active afalg-policy-lsm.service; then
		systemctl reload afalg-policy-lsm.service ||
			echo 'afalg-policy: the policy in the kernel is the one before: see "systemctl status afalg-policy-lsm"' >&2
	fi
}

# For whoever started the shipped units without "install".
stop_units() {
	systemctl --quiet disable --now afalg-policy-agent.socket afalg-policy-lsm-check.timer || true
	systemctl stop afalg-policy-agent.service afalg-policy-lsm.service || true
}

