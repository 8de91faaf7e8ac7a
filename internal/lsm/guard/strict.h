/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* strict-exec: an executable that nobody else steers. For the attachment as an LSM alone. */
#pragma once

/* Reports whether a rule asks for a clean start of the file. */
static __noinline int strict(struct file *file, struct binary *b)
{
	void *table = current_table();
	union value *meta, *named;
	struct rules set;
	struct key k;
	__s64 sec;
	__u32 nsec;

	inode_facts(BPF_CORE_READ(file, f_inode), b, &sec, &nsec);
	if (!table)
		return 0;
	meta = meta_of(table);
	__builtin_memset(&k, 0, sizeof(k));
	k.kind = KIND_BINARY;
	k.binary = *b;
	named = bpf_map_lookup_elem(table, &k);
	if (!meta || !named)
		return 0;
	set = named->binary.any;
	join(&set, &named->binary.content);
	keep(&set, &meta->meta.strict);
	return any(&set);
}

/* The loader and the C library ignore LD_PRELOAD and its like then. */
SEC("lsm/bprm_creds_from_file")
int BPF_PROG(strict_exec, struct linux_binprm *bprm, struct file *file, int ret)
{
	struct binary b;

	if (!ret && strict(file, &b))
		bpf_bprm_opts_set(bprm, BPF_F_BPRM_SECUREEXEC);
	return ret;
}

SEC("lsm/bprm_committed_creds")
int BPF_PROG(strict_started, struct linux_binprm *bprm)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct binary b = {}, none = {}, *started;
	int listed = strict(bprm->file, &b);

	if (!listed || (bprm->unsafe & LSM_UNSAFE_PTRACE) || has_listener(task)) {
		started = bpf_task_storage_get(&clean, task, 0, 0);
		if (started)
			*started = none;
		return 0;
	}
	started = bpf_task_storage_get(&clean, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (started)
		*started = b;
	return 0;
}

SEC("lsm/task_alloc")
int BPF_PROG(strict_child, struct task_struct *task, unsigned long flags, int ret)
{
	struct binary *mine, *started;

	if (ret)
		return ret;
	mine = bpf_task_storage_get(&clean, bpf_get_current_task_btf(), 0, 0);
	if (!mine || !mine->inode)
		return 0;
	started = bpf_task_storage_get(&clean, task, 0, BPF_LOCAL_STORAGE_GET_F_CREATE);
	if (!started)
		return -ENOMEM; /* it would hold its parent's sockets, and anybody could trace it */
	*started = *mine;
	return 0;
}

/* /proc/PID/mem, process_vm_writev and pidfd_getfd ask here as well. */
SEC("lsm/ptrace_access_check")
int BPF_PROG(strict_traced, struct task_struct *child, unsigned int mode, int ret)
{
	struct binary *started;
	struct facts f;

	if (ret || !(mode & PTRACE_MODE_ATTACH))
		return ret;
	started = bpf_task_storage_get(&clean, child, 0, 0);
	if (!started || !started->inode)
		return 0;
	__builtin_memset(&f, 0, sizeof(f));
	credentials(bpf_get_current_task_btf(), &f);
	if (f.capabilities >> CAP_SYS_PTRACE & 1)
		return 0;
	return -EPERM;
}
