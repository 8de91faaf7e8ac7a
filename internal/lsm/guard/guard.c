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

#include "maps.h"
#include "facts.h"
#include "cgroups.h"
#include "decide.h"
#include "record.h"

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

#include "zero_copy.h"

#ifndef FMOD_RET
#include "strict.h"
#endif

#include "tools.h"
