/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Zero-copy: pages of files as the input of an algorithm. */
#pragma once

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
