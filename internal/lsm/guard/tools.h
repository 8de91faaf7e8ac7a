/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* For user space. */
#pragma once

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
