/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Which rules a request leaves. */
#pragma once

/* Keeps the rules whose binary the task runs. Names mean nothing here: the file
 * itself was looked up when the table was made. */
static __noinline int by_binary(void *table, const union value *meta, const struct facts *f, struct rules *set)
{
	struct rules held = meta->meta.no_binary;
	union value *named;
	struct key k;

	if ((f->flags & FACT_BINARY) && (f->flags & FACT_INITIAL_USERS) && !(f->flags & FACT_LISTENER)) {
		__builtin_memset(&k, 0, sizeof(k));
		k.kind = KIND_BINARY;
		k.binary = f->binary;
		named = bpf_map_lookup_elem(table, &k);
		if (named) {
			int same = named->binary.changed_sec == f->changed_sec &&
				   named->binary.changed_nsec == f->changed_nsec;

			if (same || !named->binary.exact)
				join(&held, &named->binary.any);
			if (same)
				join(&held, &named->binary.content);
		}
	}
	if (!(f->flags & FACT_CLEAN))
		for (int i = 0; i < WORDS; i++)
			held.word[i] &= ~meta->meta.strict.word[i];
	keep(set, &held);
	return 0;
}

static __noinline int by_credentials(void *table, const union value *meta, const struct facts *f, struct rules *set)
{
	struct rules held = meta->meta.no_user;
	union value *named;
	struct key k;

	__builtin_memset(&k, 0, sizeof(k));
	k.kind = KIND_USER;
	k.user = f->user;
	named = bpf_map_lookup_elem(table, &k);
	if (named)
		join(&held, &named->rules);
	keep(set, &held);

	held = meta->meta.no_capability;
	__builtin_memset(&k, 0, sizeof(k));
	k.kind = KIND_CAPABILITIES;
	for (__u32 i = 0; i < 16; i++) {
		if (i >= meta->meta.capability_sets)
			break;
		k.index = i;
		named = bpf_map_lookup_elem(table, &k);
		if (named && (f->flags & FACT_INITIAL_USERS) && (named->capability.set & f->capabilities))
			join(&held, &named->capability.rules);
	}
	keep(set, &held);
	return 0;
}

/* Finds the rules whose conditions on the subject hold. */
static __always_inline void subject(void *table, struct facts *f, struct rules *set, const struct question *q)
{
	union value *meta = meta_of(table);

	__builtin_memset(set, 0, sizeof(*set));
	if (!meta)
		return;
	*set = meta->meta.reach;
	by_binary(table, meta, f, set);
	by_credentials(table, meta, f, set);
	if (!by_cgroup(table, meta, f, set, q))
		__builtin_memset(set, 0, sizeof(*set));
}

/* Where a type and a name stand. The kernel ends both at the ends of an address,
 * as here. */
struct source {
	const void *type;
	const void *name;
	__u32 size; /* of the name, at most */
};

static __always_inline int read_algorithm(struct algorithm *a, const struct source *from)
{
	__u32 size = from->size;

	__builtin_memset(a, 0, sizeof(*a));
	barrier_var(size);
	if (size < 1 || size > NAME_SIZE)
		return 0;
	return bpf_probe_read_kernel_str(a->type, TYPE_SIZE, from->type) > 1 &&
	       bpf_probe_read_kernel_str(a->name, size, from->name) > 1;
}

/* Keeps the rules that name the algorithm, or all of its type. A request for the
 * name that opens a type is a request for no algorithm. */
static __noinline int by_algorithm(void *table, const struct source *from, struct rules *set)
{
	struct rules held = {};
	union value *named;
	struct key k;

	__builtin_memset(&k, 0, sizeof(k));
	k.kind = KIND_ALGORITHM;
	if (read_algorithm(&k.algorithm, from) && !(k.algorithm.name[0] == '*' && k.algorithm.name[1] == 0)) {
		named = bpf_map_lookup_elem(table, &k);
		if (named)
			join(&held, &named->rules);
		__builtin_memset(k.algorithm.name, 0, sizeof(k.algorithm.name));
		named = bpf_map_lookup_elem(table, &k);
		if (named)
			join(&held, &named->rules);
	}
	keep(set, &held);
	return 0;
}

static __noinline int current_facts(struct facts *f)
{
	struct task_struct *task = bpf_get_current_task_btf();
	struct binary *started;

	__builtin_memset(f, 0, sizeof(*f));
	credentials(task, f);
	executable(task, f);
	started = bpf_task_storage_get(&clean, task, 0, 0);
	if (started && same_binary(started, &f->binary))
		f->flags |= FACT_CLEAN;
	return 0;
}
