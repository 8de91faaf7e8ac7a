/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What was asked for, and by whom. */
#pragma once

/* Writes down the names of directories above a file, as far as its mount goes. */
static __noinline int record_trail(const struct binary *b)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct dentry *d, *parent;
	static const struct trail none;
	struct trail *t;

	if (bpf_map_update_elem(&trails, b, &none, BPF_NOEXIST))
		return 0;
	t = bpf_map_lookup_elem(&trails, b);
	if (!t)
		return 0;
	d = BPF_CORE_READ(task, mm, exe_file, f_path.dentry);
	for (int i = 0; i < STEPS; i++) {
		parent = BPF_CORE_READ(d, d_parent);
		if (!d || parent == d)
			break;
		bpf_probe_read_kernel_str(t->step[i], STEP_SIZE, BPF_CORE_READ(d, d_name.name));
		d = parent;
	}
	return 0;
}

struct name_walk {
	__u64 ancestors;
	__u64 wanted;
	__u32 levels;
};

static long name_level(__u32 i, struct name_walk *w)
{
	static const struct unit_name none;
	struct unit_name *n;
	struct cgroup *cg = 0;

	if (i >= w->levels)
		return 1;
	bpf_probe_read_kernel(&cg, sizeof(cg), (void *)(w->ancestors + 8ULL * (i + 1)));
	if (BPF_CORE_READ(cg, kn, id) != w->wanted)
		return 0;
	if (!bpf_map_update_elem(&unit_names, &w->wanted, &none, BPF_NOEXIST)) {
		n = bpf_map_lookup_elem(&unit_names, &w->wanted);
		if (n)
			bpf_probe_read_kernel_str(n->name, UNIT_SIZE, BPF_CORE_READ(cg, kn, name));
	}
	return 1;
}

static __noinline int record_unit(__u64 cgroup)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct cgroup *cg = BPF_CORE_READ(task, cgroups, dfl_cgrp);
	struct name_walk w = {};

	if (bpf_map_lookup_elem(&unit_names, &cgroup))
		return 0;
	w.ancestors = (__u64)cg + __builtin_preserve_field_info(cg->ancestors, BPF_FIELD_BYTE_OFFSET);
	w.levels = BPF_CORE_READ(cg, level);
	w.wanted = cgroup;
	bpf_loop(LEVELS, name_level, &w, 0);
	return 0;
}

static __noinline int record(const struct facts *f, const struct source *a, __u32 hook, __u32 allowed)
{
	struct times *have, now = {.count = 1};
	struct use u;

	__builtin_memset(&u, 0, sizeof(u));
	if (a)
		read_algorithm(&u.algorithm, a);
	u.hook = hook;
	u.allowed = allowed;
	u.cgroup = f->cgroup;
	u.binary = f->binary;
	u.user = f->user;
	u.flags = f->flags;
	now.first = now.last = bpf_ktime_get_boot_ns();
	have = bpf_map_lookup_elem(&uses, &u);
	if (have) {
		__sync_fetch_and_add(&have->count, 1);
		have->last = now.last;
	} else {
		if (bpf_map_update_elem(&uses, &u, &now, BPF_NOEXIST))
			count(COUNT_LOST);
		record_trail(&f->binary);
		record_unit(f->cgroup);
	}
	count(allowed ? COUNT_ALLOWED : COUNT_DENIED);
	return 0;
}
