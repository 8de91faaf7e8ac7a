//go:build ignore

/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Decides about AF_ALG in the kernel, as plan.Decide does. One source for two
 * attachments: as an LSM, and with FMOD_RET as a modification of the returns of
 * the security_ functions that call the LSMs. */
#include "kernel.h"

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "guard.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#ifdef FMOD_RET
#define HOOK(name) SEC("fmod_ret/security_" #name)
#else
#define HOOK(name) SEC("lsm/" #name)
#endif

#define AF_ALG 38
#define EPERM 1
#define EINVAL 22
#define ENOMEM 12
#define EOPNOTSUPP 95
#define MSG_SPLICE_PAGES 0x8000000
#define CAP_SYS_PTRACE 19
#define CAP_SYS_ADMIN 21
#define LSM_UNSAFE_PTRACE 2
#define PTRACE_MODE_ATTACH 2
#define PR_SET_MM 35
#define PR_SET_MM_EXE_FILE 13
#define PR_SET_MM_MAP 14
#define INITIAL_CGROUP_NS 0xEFFFFFFBU /* PROC_CGROUP_INIT_INO */

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

/* ---- Who asks ---- */

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

/* ---- Units and containers, by cgroup ---- */

struct scan {
	__u32 length;
	__u32 at;  /* the first '@', if any_at */
	__u32 dot; /* the last '.' */
	__u8 any_at;
	__u8 any_dot;
	__u8 foreign; /* a character that no unit has before its last dot */
	__u8 foreign_now; /* since the last dot */
};

/* Where a walk down the cgroups of a task is. */
struct walk {
	__u64 ancestors; /* address of the task's cgroups, from the root */
	const struct question *question; /* in a test, instead */
	__u64 generation;
	__u32 levels;
	__u8 done; /* the unit is found, or there is none */
	__u8 found;
	__u8 registered;
	__u64 cgroup; /* of the unit */
	__u64 source; /* of its name */
	struct rules granted;
	struct scan scan;
	struct key key; /* the unit */
};

static __always_inline int of_unit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= ':') || c == '-' || c == '_' ||
	       c == '.' || c == '\\' || c == '@';
}

static long scan_character(__u32 i, struct walk *w)
{
	if (i >= UNIT_SIZE)
		return 1;
	char c = w->key.unit[i];
	if (!c)
		return 1;
	w->scan.length = i + 1;
	if (c == '@' && !w->scan.any_at) {
		w->scan.any_at = 1;
		w->scan.at = i;
	}
	if (c == '.') {
		w->scan.any_dot = 1;
		w->scan.dot = i;
		w->scan.foreign |= w->scan.foreign_now;
	}
	if (!of_unit(c))
		w->scan.foreign_now = 1;
	return 0;
}

/* Points source at the name of a cgroup, and returns the id of that. */
static __always_inline __u64 cgroup_at(struct walk *w, __u32 level, const char **source)
{
	struct cgroup *cg = 0;

	if (w->question) {
		*source = w->question->name[level & (LEVELS - 1)];
		return w->question->cgroup[level & (LEVELS - 1)];
	}
	bpf_probe_read_kernel(&cg, sizeof(cg), (void *)(w->ancestors + 8ULL * (level + 1)));
	*source = BPF_CORE_READ(cg, kn, name);
	return BPF_CORE_READ(cg, kn, id);
}

/* Looks whether a cgroup is that of the unit: the first that is no slice. */
static __always_inline void unit_level(struct walk *w, const char *source, __u64 id)
{
	char first = 0, tail[8] = {};
	struct scan *s = &w->scan;

	w->done = 1;
	bpf_probe_read_kernel(&first, 1, source);
	if (first == '_') /* systemd's escape */
		source++;
	__builtin_memset(&w->key, 0, sizeof(w->key));
	__builtin_memset(s, 0, sizeof(*s));
	w->key.kind = KIND_UNIT;
	if (bpf_probe_read_kernel_str(w->key.unit, UNIT_SIZE, source) >= UNIT_SIZE)
		return; /* too long for a key */
	bpf_loop(UNIT_SIZE, scan_character, w, 0);
	if (!s->any_dot || s->dot == 0 || s->foreign)
		return;
	if (s->length - s->dot == 6) {
		bpf_probe_read_kernel(tail, 6, source + s->dot);
		if (*(__u64 *)tail == 0x6563696c732eULL) { /* ".slice" */
			w->done = s->any_at;
			return;
		}
	}
	if (s->any_at && (s->at == 0 || s->at + 1 == s->dot))
		return;
	w->found = 1;
	w->cgroup = id;
	w->source = (__u64)source;
}

/* Makes the key of the template that a unit is an instance of. */
static __noinline long template_of(struct walk *w)
{
	__u32 size = w->scan.at + 2; /* with the '@' and a NUL */
	const char *source = (const char *)w->source;

	if (!w->scan.any_at || w->scan.dot + 1 <= size || size > PREFIX_SIZE)
		return 0;
	__builtin_memset(&w->key, 0, sizeof(w->key));
	w->key.kind = KIND_TEMPLATE;
	bpf_probe_read_kernel_str(w->key.template.prefix, size, source);
	bpf_probe_read_kernel_str(w->key.template.type, sizeof(w->key.template.type), source + w->scan.dot + 1);
	return 1;
}

static long walk_level(__u32 i, struct walk *w)
{
	struct container c = {.generation = w->generation};
	struct rules *granted;
	const char *source = 0;

	if (i >= w->levels)
		return 1;
	c.cgroup = cgroup_at(w, i, &source);
	granted = bpf_map_lookup_elem(&containers, &c);
	if (granted) {
		keep(&w->granted, granted);
		w->registered = 1;
	}
	if (!w->done)
		unit_level(w, source, c.cgroup);
	return 0;
}

static __always_inline void walk_from(struct walk *w, __u64 generation)
{
	__builtin_memset(w, 0, sizeof(*w));
	__builtin_memset(&w->granted, 0xff, sizeof(w->granted));
	w->generation = generation;
}

/* Keeps the rules that the cgroups of the task leave: those of its unit, and the
 * grants of its container. What is contained and not registered holds none. */
static __noinline int by_cgroup(void *table, const union value *meta, struct facts *f, struct rules *set, const struct question *q)
{
	union value *named;
	struct walk w;

	walk_from(&w, meta->meta.generation);
	if (q) {
		w.question = q;
		w.levels = q->levels;
	} else {
		struct task_struct *task = bpf_get_current_task_btf();
		struct cgroup *cg = BPF_CORE_READ(task, cgroups, dfl_cgrp);

		w.ancestors = (__u64)cg + __builtin_preserve_field_info(cg->ancestors, BPF_FIELD_BYTE_OFFSET);
		w.levels = BPF_CORE_READ(cg, level);
		f->cgroup = BPF_CORE_READ(cg, kn, id);
	}
	bpf_loop(LEVELS, walk_level, &w, 0);
	if (!w.registered && (f->flags & FACT_CONTAINED))
		return 0;
	keep(set, &w.granted);
	w.granted = meta->meta.no_unit; /* from here on: the rules that the unit leaves */
	if (w.found) {
		f->cgroup = w.cgroup;
		named = bpf_map_lookup_elem(table, &w.key);
		if (named)
			join(&w.granted, &named->rules);
		if (template_of(&w)) {
			named = bpf_map_lookup_elem(table, &w.key);
			if (named)
				join(&w.granted, &named->rules);
		}
	}
	keep(set, &w.granted);
	return 1;
}

/* ---- Decisions ---- */

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

/* ---- Records ---- */

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

/* ---- Hooks ---- */

/* The verifier wants to see what a hook answers. */
static __always_inline long within(__s64 answer)
{
	barrier_var(answer);
	return answer < 0 && answer >= -4095 ? answer : -EPERM;
}

/* Returns 0 if the current task may make a socket (no algorithm), or use the
 * algorithm. */
static __noinline long ask(__u32 hook, const struct source *a)
{
	void *table = current_table();
	union value *meta;
	struct facts f;
	struct rules set;
	int allowed;

	if (!table)
		goto no_table;
	meta = meta_of(table);
	if (!meta)
		goto no_table;
	current_facts(&f);
	subject(table, &f, &set, 0);
	if (a)
		by_algorithm(table, a, &set);
	allowed = any(&set);
	record(&f, a, hook, allowed);
	if (allowed || (meta->meta.flags & FLAG_AUDIT))
		return 0;
	if (hook == HOOK_SOCKET)
		return within(meta->meta.socket_answer);
	if (hook == HOOK_BIND)
		return within(meta->meta.bind_answer);
	return -EINVAL;
no_table:
	count(COUNT_NO_TABLE);
	return -EPERM;
}

static __noinline __u32 flags_now(void)
{
	void *table = current_table();
	union value *meta;

	if (!table)
		return 0;
	meta = meta_of(table);
	return meta ? meta->meta.flags : 0;
}

static __noinline long closed_family(void)
{
	void *table = current_table();
	union value *meta = table ? meta_of(table) : 0;

	if (!meta) {
		count(COUNT_NO_TABLE);
		return -EPERM;
	}
	if (meta->meta.flags & FLAG_AUDIT)
		return 0;
	count(COUNT_DENIED);
	return within(meta->meta.socket_answer);
}

HOOK(socket_create)
long BPF_PROG(guard_socket, int family, int type, int protocol, int kern, int ret)
{
	if (ret || kern)
		return ret;
	if (family == AF_ALG)
		return ask(HOOK_SOCKET, 0);
	if ((__u32)family < 64 && (families >> family & 1))
		return closed_family();
	return 0;
}

/* Reads the family where the verifier knows what sk is, without a helper: that
 * would take a call about another family longer than all the rest here. */
static __always_inline int is_alg(struct sock *sk)
{
	return sk && sk->__sk_common.skc_family == AF_ALG;
}

/* An operation socket knows the socket that it was accepted from. af_alg is a
 * module, whose types a kernel without it does not know: but struct alg_sock
 * begins with a struct sock, and that pointer follows. */
static __always_inline struct sock *parent_of(struct sock *sk)
{
	struct sock *parent = 0;

	bpf_probe_read_kernel(&parent, sizeof(parent), (void *)sk + bpf_core_type_size(struct sock));
	return parent;
}

/* After the parent: two counters of 32 bits, then the type, once it is bound. */
static __always_inline int is_bound(struct sock *sk)
{
	__u64 type = 0;

	bpf_probe_read_kernel(&type, sizeof(type), (void *)sk + bpf_core_type_size(struct sock) + 16);
	return type != 0;
}

static __always_inline __u64 cookie_of(struct sock *sk)
{
	return BPF_CORE_READ(sk, __sk_common.skc_cookie.counter);
}

/* Finds what a socket, or the parent of an operation socket, was bound to under
 * guard. */
static __always_inline struct mark *mark_of(struct sock *sk)
{
	struct sock *parent = parent_of(sk);
	struct mark *m;
	__u64 address;

	if (parent)
		sk = parent;
	address = (__u64)sk;
	m = bpf_map_lookup_elem(&marks, &address);
	return m && m->cookie == cookie_of(sk) ? m : 0;
}

static __noinline int same_algorithm(const struct algorithm *a, const struct algorithm *b)
{
	const __u64 *x = (const void *)a, *y = (const void *)b;

	for (int i = 0; i < (int)(sizeof(*a) / 8); i++)
		if (x[i] != y[i])
			return 0;
	return 1;
}

/* The call may fail after this, and leave the socket bound to what it was: so a
 * mark that differs from it says so, and a socket that is bound without a mark,
 * which is from before the load, gets none. */
static __noinline long remember(struct sock *sk, const struct source *from)
{
	__u64 key = (__u64)sk;
	struct mark *old, m;

	__builtin_memset(&m, 0, sizeof(m));
	m.cookie = bpf_get_socket_cookie(sk);
	read_algorithm(&m.algorithm, from);
	if (is_bound(sk)) {
		old = bpf_map_lookup_elem(&marks, &key);
		if (!old || old->cookie != m.cookie) {
			count(COUNT_UNMARKED);
			return -EINVAL;
		}
		m.several = old->several || !same_algorithm(&old->algorithm, &m.algorithm);
	}
	if (bpf_map_update_elem(&marks, &key, &m, 0)) {
		count(COUNT_FULL);
		return -ENOMEM;
	}
	return 0;
}

/* The kernel has copied the address already, so nobody changes it any more. */
HOOK(socket_bind)
long BPF_PROG(guard_bind, struct socket *sock, struct sockaddr *address, int size, int ret)
{
	struct sock *sk = sock->sk;
	struct source from;
	long answer;

	if (ret || !is_alg(sk))
		return ret;
	if (size < 25)
		return -EINVAL;
	from.type = (void *)address + 2;
	from.name = (void *)address + 24;
	from.size = size - 24;
	answer = ask(HOOK_BIND, &from);
	if (answer)
		return answer;
	answer = remember(sk, &from);
	return answer && flags_now() & FLAG_AUDIT ? 0 : answer;
}

HOOK(socket_accept)
long BPF_PROG(guard_accept, struct socket *sock, struct socket *newsock, int ret)
{
	struct sock *sk = sock->sk;
	struct mark *m;

	if (ret || !is_alg(sk))
		return ret;
	m = mark_of(sk);
	if (m && !m->several) {
		struct source from = {m->algorithm.type, m->algorithm.name, NAME_SIZE};
		return ask(HOOK_ACCEPT, &from);
	}
	count(COUNT_UNMARKED);
	return flags_now() & FLAG_AUDIT ? 0 : -EINVAL;
}

/* A task may say which file its memory was started from: in a user namespace of
 * its own, and with a capability for checkpoints. It may share that memory with
 * a task outside the namespace. */
HOOK(task_prctl)
long BPF_PROG(guard_prctl, int option, unsigned long what)
{
	struct facts f;

	if (option != PR_SET_MM || (what != PR_SET_MM_EXE_FILE && what != PR_SET_MM_MAP))
		return 0;
	__builtin_memset(&f, 0, sizeof(f));
	credentials(bpf_get_current_task_btf(), &f);
	if (f.capabilities >> CAP_SYS_ADMIN & 1 || flags_now() & FLAG_AUDIT)
		return 0;
	return -EPERM;
}

/* ---- Zero-copy: pages of files as the input of an algorithm ---- */

static __noinline int refuse_zero_copy(void)
{
	if (!(flags_now() & FLAG_ZERO_COPY))
		return 0;
	count(COUNT_ZERO_COPY);
	return -EOPNOTSUPP;
}

/* Linux 6.5 and later. */
HOOK(socket_sendmsg)
long BPF_PROG(guard_sendmsg, struct socket *sock, struct msghdr *msg, int size, int ret)
{
	if (ret || !(msg->msg_flags & MSG_SPLICE_PAGES) || !is_alg(sock->sk))
		return ret;
	return refuse_zero_copy();
}

/* There was no room for one that is. */
static volatile __u32 all_tainted;

/* Before 6.5 no hook sees the pages go in: what has such pages gives no result. */
SEC("fentry/sock_sendpage")
int BPF_PROG(taint_sendpage, struct file *file)
{
	struct socket *sock = file->private_data;
	struct sock *sk = BPF_CORE_READ(sock, sk);
	__u64 address = (__u64)sk, inode;

	if (BPF_CORE_READ(sk, __sk_common.skc_family) != AF_ALG)
		return 0;
	inode = BPF_CORE_READ(file, f_inode, i_ino);
	if (bpf_map_update_elem(&tainted, &address, &inode, 0))
		all_tainted = 1;
	return 0;
}

HOOK(socket_recvmsg)
long BPF_PROG(guard_recvmsg, struct socket *sock, struct msghdr *msg, int size, int flags, int ret)
{
	struct sock *sk = sock->sk;
	__u64 address = (__u64)sk, *inode;

	if (ret || !is_alg(sk))
		return ret;
	inode = bpf_map_lookup_elem(&tainted, &address);
	if (!all_tainted && (!inode || *inode != BPF_CORE_READ(sock, file, f_inode, i_ino)))
		return 0;
	return refuse_zero_copy();
}

#ifndef FMOD_RET
/* ---- strict-exec: an executable that nobody else steers ---- */

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
#endif

/* ---- For user space ---- */

/* Lists open files: those of one process, and of all the sockets of AF_ALG. */
const volatile __u32 files_of;

SEC("iter/task_file")
int list_files(struct bpf_iter__task_file *ctx)
{
	struct task_struct *task = ctx->task;
	struct file *file = ctx->file;
	struct socket *sock;
	struct open_file o;
	struct sock *sk;

	if (!task || !file)
		return 0;
	__builtin_memset(&o, 0, sizeof(o));
	o.process = task->tgid;
	o.descriptor = ctx->fd;
	sock = bpf_sock_from_file(file);
	if (sock) {
		sk = sock->sk;
		if (!is_alg(sk))
			return 0;
		o.family = AF_ALG;
		o.address = (__u64)sk;
		o.parent = (__u64)parent_of(sk);
		o.marked = mark_of(sk) != 0;
	} else if (o.process != files_of) {
		return 0;
	}
	inode_facts(file->f_inode, &o.file, &o.changed_sec, &o.changed_nsec);
	bpf_seq_write(ctx->meta->seq, &o, sizeof(o));
	return 0;
}

/* Reads a variable of the kernel. */
SEC("syscall")
int peek(struct variable *p)
{
	__s32 value = 0;

	p->error = bpf_probe_read_kernel(&value, sizeof(value), (void *)p->address);
	p->value = value;
	return 0;
}

/* Answers questions as the hooks would, for tests. */
#define QUESTIONS 1024

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, QUESTIONS);
	__type(key, __u32);
	__type(value, struct question);
} questions SEC(".maps");

static long answer(__u32 i, void *unused)
{
	struct question *q = bpf_map_lookup_elem(&questions, &i);
	void *table = current_table();
	struct rules set;

	if (!q || !table)
		return 1;
	subject(table, &q->facts, &set, q);
	q->reached = any(&set);
	struct source from = {q->algorithm.type, q->algorithm.name, NAME_SIZE};
	by_algorithm(table, &from, &set);
	q->allowed = any(&set);
	return 0;
}

SEC("syscall")
int decide(void *unused)
{
	bpf_loop(QUESTIONS, answer, 0, 0);
	return 0;
}

/* A type is in an object's BTF if something outside of functions has it. */
const enum kind *unused_kind __attribute__((unused));
const enum flag *unused_flag __attribute__((unused));
const enum fact *unused_fact __attribute__((unused));
const enum hook *unused_hook __attribute__((unused));
const enum counter *unused_counter __attribute__((unused));
const struct open_file *unused_open_file __attribute__((unused));
const struct variable *unused_variable __attribute__((unused));
