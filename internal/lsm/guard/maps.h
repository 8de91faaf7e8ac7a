/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* The maps, and sets of rules. */
#pragma once

/* Families that the policy closes besides AF_ALG, by bit. In read-only data, so
 * that a call about another family looks nothing up. */
const volatile __u64 families;

/* The table. All of a policy is one frozen map in one slot, so that no decision
 * mixes two policies. */
struct table {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct key);
	__type(value, union value);
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(values, struct table);
} slot SEC(".maps");

#define HASH(title, entries, k, v)                     \
	struct {                                       \
		__uint(type, BPF_MAP_TYPE_HASH);       \
		__uint(map_flags, BPF_F_NO_PREALLOC);  \
		__uint(max_entries, entries);          \
		__type(key, k);                        \
		__type(value, v);                      \
	} title SEC(".maps")

HASH(containers, 4096, struct container, struct rules);
HASH(uses, 8192, struct use, struct times);
HASH(trails, 2048, struct binary, struct trail);
HASH(unit_names, 4096, __u64, struct unit_name);
/* By address and not by cookie: nothing tells of a socket's end, and addresses
 * come again. User space sweeps what is left. */
HASH(marks, 16384, __u64, struct mark);
HASH(tainted, 4096, __u64, __u64);

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* The executable that a task was started as, cleanly. */
struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct binary);
} clean SEC(".maps");

static __always_inline void count(__u32 which)
{
	__u64 *n = bpf_map_lookup_elem(&counters, &which);
	if (n)
		__sync_fetch_and_add(n, 1);
}

static __always_inline void *current_table(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&slot, &zero);
}

static __always_inline void keep(struct rules *set, const struct rules *of)
{
	for (int i = 0; i < WORDS; i++)
		set->word[i] &= of->word[i];
}

static __always_inline void join(struct rules *set, const struct rules *of)
{
	for (int i = 0; i < WORDS; i++)
		set->word[i] |= of->word[i];
}

static __always_inline int any(const struct rules *set)
{
	__u64 all = 0;
	for (int i = 0; i < WORDS; i++)
		all |= set->word[i];
	return all != 0;
}

static __noinline union value *meta_of(void *table)
{
	struct key k;
	__builtin_memset(&k, 0, sizeof(k));
	k.kind = KIND_META;
	return bpf_map_lookup_elem(table, &k);
}
