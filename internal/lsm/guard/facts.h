/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Who asks. */
#pragma once

static __always_inline void inode_facts(struct inode *inode, struct binary *key, __s64 *sec, __u32 *nsec)
{
	struct inode___6_6 *middle = (void *)inode;
	struct inode___old *old = (void *)inode;

	key->inode = BPF_CORE_READ(inode, i_ino);
	key->generation = BPF_CORE_READ(inode, i_generation);
	key->device = BPF_CORE_READ(inode, i_sb, s_dev);
	if (bpf_core_field_exists(inode->i_ctime_sec)) {
		*sec = BPF_CORE_READ(inode, i_ctime_sec);
		*nsec = BPF_CORE_READ(inode, i_ctime_nsec);
	} else if (bpf_core_field_exists(middle->__i_ctime)) {
		*sec = BPF_CORE_READ(middle, __i_ctime.tv_sec);
		*nsec = BPF_CORE_READ(middle, __i_ctime.tv_nsec);
	} else {
		*sec = BPF_CORE_READ(old, i_ctime.tv_sec);
		*nsec = BPF_CORE_READ(old, i_ctime.tv_nsec);
	}
}

/* A supervisor of one of the filters can answer an openat of the task with a file
 * of its own. Filters beyond the last that is read may have one. */
static __noinline int has_listener(struct task_struct *task)
{
	struct seccomp_filter *f = BPF_CORE_READ(task, seccomp.filter);
	for (int i = 0; i < 32; i++) {
		if (!f)
			return 0;
		if (BPF_CORE_READ(f, notif))
			return 1;
		f = BPF_CORE_READ(f, prev);
	}
	return 1;
}

static __noinline int same_binary(const struct binary *a, const struct binary *b)
{
	return a->inode == b->inode && a->device == b->device && a->generation == b->generation;
}

static __noinline int credentials(struct task_struct *task, struct facts *f)
{
	struct nsproxy *ns = BPF_CORE_READ(task, nsproxy);
	const struct cred *cred = BPF_CORE_READ(task, cred);

	f->user = BPF_CORE_READ(cred, euid.val);
	if (BPF_CORE_READ(cred, user_ns, level) == 0) {
		f->flags |= FACT_INITIAL_USERS;
		bpf_probe_read_kernel(&f->capabilities, sizeof(f->capabilities),
				      __builtin_preserve_access_index(&cred->cap_effective));
	}
	if (!ns || BPF_CORE_READ(ns, cgroup_ns, ns.inum) != INITIAL_CGROUP_NS || BPF_CORE_READ(task, thread_pid, level) != 0)
		f->flags |= FACT_CONTAINED;
	return 0;
}

static __noinline int executable(struct task_struct *task, struct facts *f)
{
	struct inode *inode = BPF_CORE_READ(task, mm, exe_file, f_inode);
	if (!inode)
		return 0;
	inode_facts(inode, &f->binary, &f->changed_sec, &f->changed_nsec);
	f->flags |= FACT_BINARY;
	if (has_listener(task))
		f->flags |= FACT_LISTENER;
	return 0;
}
