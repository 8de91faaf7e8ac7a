/* The least that a supervisor of AF_ALG can be: the placeholder scheme of
 * package broker in one thread, for one process, without any decision. It is
 * what the broker's cost is compared with, and nothing to be used: it trusts
 * inode numbers, makes pairs itself and lets everybody bind anything.
 *
 * Use: floor [-s] COMMAND... With -s ordinary sockets stand in for those of
 * AF_ALG, for kernels without. */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_alg.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SECCOMP_ADDFD_FLAG_SEND
#define SECCOMP_ADDFD_FLAG_SEND 2
#endif
#ifndef SECCOMP_IOCTL_NOTIF_SET_FLAGS
#define SECCOMP_IOCTL_NOTIF_SET_FLAGS SECCOMP_IOW(4, __u64)
#endif

enum { SESSIONS = 256, SYNC_WAKE_UP = 1 };

static int standin, listener, poller;

static struct session {
	ino_t inode; /* of the placeholder; 0 if this place is free */
	int kept, parent;
} sessions[SESSIONS];

#define ARG(n) offsetof(struct seccomp_data, args[n])
#define LOAD(at) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, at)
#define SKIP_UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, 0, skip)
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, what)
/* Four instructions: a call is trapped if an argument has that value. */
#define TRAP(nr, arg, value) SKIP_UNLESS(nr, 3), LOAD(ARG(arg)), SKIP_UNLESS(value, 1), RETURN(SECCOMP_RET_USER_NOTIF)

static int load_filter(void)
{
	/* After a match with another argument the number is lost, and the call
	 * falls through to the end, as no constant is a number it could match. */
	struct sock_filter code[] = {
		LOAD(offsetof(struct seccomp_data, nr)),
		TRAP(SYS_socket, 0, AF_ALG),
		TRAP(SYS_bind, 2, sizeof(struct sockaddr_alg)),
		TRAP(SYS_setsockopt, 1, SOL_ALG),
		TRAP(SYS_accept4, 1, 0),
		RETURN(SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof code / sizeof *code, code };
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err(2, "prctl");
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
	if (fd < 0)
		err(2, "seccomp");
	return fd;
}

static void transfer(int socket, int *fd, int sending)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	if (!sending) {
		if (recvmsg(socket, &m, MSG_CMSG_CLOEXEC) != 1 || !CMSG_FIRSTHDR(&m))
			errx(2, "the child sent no listener");
		memcpy(fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof *fd);
		return;
	}
	*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fd, sizeof *fd);
	if (sendmsg(socket, &m, 0) != 1)
		err(2, "sendmsg");
}

static struct session *find(pid_t tid, int fd)
{
	char path[64], link[64];
	ino_t inode;
	snprintf(path, sizeof path, "/proc/%d/fd/%d", tid, fd);
	ssize_t n = readlink(path, link, sizeof link - 1);
	if (n < 0)
		return NULL;
	link[n] = 0;
	if (sscanf(link, "socket:[%lu]", &inode) != 1)
		return NULL;
	for (int i = 0; i < SESSIONS; i++)
		if (sessions[i].inode == inode)
			return &sessions[i];
	return NULL;
}

static int inject(__u64 id, int fd, int cloexec)
{
	struct seccomp_notif_addfd a = {
		.id = id, .srcfd = fd, .flags = SECCOMP_ADDFD_FLAG_SEND, .newfd_flags = cloexec ? O_CLOEXEC : 0,
	};
	int n = ioctl(listener, SECCOMP_IOCTL_NOTIF_ADDFD, &a);
	close(fd);
	return n;
}

/* Each of these returns an errno, 0 for a call that is answered already. */

static int on_socket(struct seccomp_notif *q)
{
	struct session *s = sessions;
	struct stat st;
	int pair[2];
	while (s < sessions + SESSIONS && s->inode)
		s++;
	if (s == sessions + SESSIONS)
		return ENFILE;
	s->parent = standin ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) : socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (s->parent < 0)
		return errno;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) || shutdown(pair[1], SHUT_RD) || fstat(pair[0], &st))
		return ENFILE;
	s->inode = st.st_ino;
	s->kept = pair[1];
	struct epoll_event e = { .data.ptr = s };
	epoll_ctl(poller, EPOLL_CTL_ADD, s->kept, &e);
	inject(q->id, pair[0], q->data.args[1] & SOCK_CLOEXEC);
	return 0;
}

static int read_memory(pid_t tid, __u64 from, void *to, size_t n)
{
	struct iovec here = { to, n }, there = { (void *)from, n };
	return process_vm_readv(tid, &here, 1, &there, 1, 0) == (ssize_t)n ? 0 : EFAULT;
}

static int on_bind(struct seccomp_notif *q, struct session *s)
{
	struct sockaddr_alg address;
	int bad = read_memory(q->pid, q->data.args[1], &address, sizeof address);
	if (bad || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &q->id))
		return bad ? bad : ESRCH;
	return standin || !bind(s->parent, (struct sockaddr *)&address, sizeof address) ? 0 : errno;
}

static int on_setsockopt(struct seccomp_notif *q, struct session *s)
{
	char key[256];
	size_t n = q->data.args[4];
	int bad = n > sizeof key ? ENOMEM : read_memory(q->pid, q->data.args[3], key, n);
	if (bad || ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &q->id))
		return bad ? bad : ESRCH;
	return standin || !setsockopt(s->parent, SOL_ALG, ALG_SET_KEY, key, n) ? 0 : errno;
}

static int on_accept(struct seccomp_notif *q, struct session *s)
{
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_ID_VALID, &q->id))
		return ESRCH;
	int fd = standin ? socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0) : accept4(s->parent, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return errno;
	inject(q->id, fd, q->data.args[3] & SOCK_CLOEXEC);
	return 0;
}

static void answer(void)
{
	struct seccomp_notif q = { 0 };
	if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &q))
		return;
	struct seccomp_notif_resp r = { .id = q.id };
	struct session *s = q.data.nr == SYS_socket ? NULL : find(q.pid, q.data.args[0]);
	if (q.data.nr == SYS_socket) {
		if (!(r.error = -on_socket(&q)))
			return;
	} else if (!s) {
		r.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
	} else if (q.data.nr == SYS_bind) {
		r.error = -on_bind(&q, s);
	} else if (q.data.nr == SYS_setsockopt) {
		r.error = -on_setsockopt(&q, s);
	} else if (!(r.error = -on_accept(&q, s))) {
		return;
	}
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
}

static void serve(void)
{
	struct epoll_event e = { .events = EPOLLIN };
	poller = epoll_create1(EPOLL_CLOEXEC);
	if (poller < 0 || epoll_ctl(poller, EPOLL_CTL_ADD, listener, &e))
		err(2, "epoll");
	while (epoll_wait(poller, &e, 1, -1) == 1 || errno == EINTR) {
		struct session *s = e.data.ptr;
		if (s) {
			close(s->kept);
			close(s->parent);
			s->inode = 0;
		} else if (e.events & EPOLLIN) {
			answer();
		} else {
			return;
		}
	}
}

int main(int argc, char **argv)
{
	int pair[2], status;
	argv++;
	if (argc > 1 && !strcmp(*argv, "-s")) {
		standin = 1;
		argv++;
	}
	if (!*argv)
		errx(2, "usage: floor [-s] COMMAND...");
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
		err(2, "socketpair");
	pid_t child = fork();
	if (child < 0)
		err(2, "fork");
	if (!child) {
		int fd = load_filter();
		transfer(pair[1], &fd, 1);
		execv(*argv, argv);
		err(127, "%s", *argv);
	}
	transfer(pair[0], &listener, 0);
	ioctl(listener, SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP); /* Linux 6.6 */
	serve();
	if (waitpid(child, &status, 0) != child)
		err(2, "waitpid");
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
