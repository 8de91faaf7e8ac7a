/* Tries what a policy can close besides AF_ALG, by every way into the kernel, and
 * prints what each gives: a line for each class, "xfrm socket ok".
 *
 *   gcc -static -o classes classes.c
 *
 * It makes sockets and binds them, names an upper-layer protocol that no kernel
 * has, and makes user namespaces in children that end at once. ENOENT for that
 * protocol means that the kernel was asked. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char *low; /* memory that 32-bit pointers reach */

static long int80(long nr, long a, long b, long c, long d, long e)
{
	long ret;
	/* Older kernels zero r8 to r11 on this way in. */
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c), "S"(d), "D"(e)
			 : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}

static long checked(long ret) { return ret < 0 ? -errno : ret; }

static long native(long nr, long a, long b, long c, long d, long e)
{
	return checked(syscall(nr, a, b, c, d, e));
}

static long x32(long nr, long a, long b, long c, long d, long e)
{
	return native(0x40000000 + nr, a, b, c, d, e);
}

static void print(const char *class, const char *way, long ret)
{
	const char *name = ret >= 0 ? "ok" : strerrorname_np((int)-ret);
	printf("%s %s %s\n", class, way, name ? name : "unknown errno");
}

#define HIGH (1L << 32)

/* 32-bit programs pass the arguments of socket behind a pointer. */
static long multiplexed(long call, int n, ...)
{
	__builtin_va_list list;
	unsigned int *words = (void *)low;
	__builtin_va_start(list, n);
	for (int i = 0; i < n; i++)
		words[i] = (unsigned int)__builtin_va_arg(list, long);
	__builtin_va_end(list);
	return int80(102, call, (long)words, 0, 0, 0);
}

static void sockets(const char *class, long family, long type, long protocol)
{
	struct { const char *way; long ret; } tries[] = {
		{ "socket", native(SYS_socket, family, type, protocol, 0, 0) },
		{ "flags", native(SYS_socket, family, type | SOCK_CLOEXEC | SOCK_NONBLOCK, protocol, 0, 0) },
		{ "upper-halves", native(SYS_socket, family | HIGH, type | HIGH, protocol | HIGH, 0, 0) },
		{ "upper-half-of-type", native(SYS_socket, family, type | HIGH, protocol, 0, 0) },
		{ "upper-half-of-protocol", native(SYS_socket, family, type, protocol | HIGH << 31, 0, 0) },
		{ "i386", int80(359, family, type, protocol, 0, 0) },
		{ "socketcall", multiplexed(1, 3, family, type, protocol) },
		{ "x32", x32(SYS_socket, family, type, protocol, 0, 0) },
		{ "socketpair", native(SYS_socketpair, family, type, protocol, (long)low + 512, 0) },
		{ "socketcall-pair", multiplexed(8, 4, family, type, protocol, (long)low + 512) },
	};
	for (unsigned int i = 0; i < sizeof(tries) / sizeof(*tries); i++) {
		print(class, tries[i].way, tries[i].ret);
		if (tries[i].ret > 2)
			close((int)tries[i].ret);
	}
}

/* A netlink socket is bound: that it was made is not all. */
static void bound(const char *class, int protocol)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, protocol);
	print(class, "bind", checked(fd < 0 ? fd : bind(fd, (struct sockaddr *)&address, sizeof(address))));
	close(fd);
}

static void option(const char *class, long level, long name)
{
	long fd = native(SYS_socket, AF_INET, SOCK_STREAM, 0, 0, 0), value = (long)low + 512;
	if (fd < 0)
		fd = native(SYS_socket, AF_INET6, SOCK_STREAM, 0, 0, 0);
	memcpy(low + 512, "nosuch\0\0", 8);
	print(class, "setsockopt", native(SYS_setsockopt, fd, level, name, value, 6));
	print(class, "upper-halves", native(SYS_setsockopt, fd, level | HIGH, name | HIGH, value, 6));
	print(class, "i386", int80(366, fd, level, name, value, 6));
	print(class, "socketcall", multiplexed(14, 5, fd, level, name, value, 6L));
	print(class, "x32", checked(syscall(0x40000000 + 541, fd, level, name, value, 6)));
	close((int)fd);
}

/* What a child that was made by a call gives, or the call itself. */
static long ended(long pid)
{
	int status;
	if (pid == 0)
		_exit(0);
	if (pid < 0)
		return pid;
	if (waitpid((int)pid, &status, 0) < 0)
		return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

static long in_child(long (*enter)(long, long, long, long, long, long), long nr, long flags)
{
	pid_t pid = fork();
	if (pid == 0)
		_exit((int)-enter(nr, flags, 0, 0, 0, 0));
	return ended(pid);
}

static void namespaces(const char *class, unsigned long flags)
{
	struct clone_args *args = (void *)low;
	memset(args, 0, sizeof(*args));
	args->flags = flags;
	args->exit_signal = SIGCHLD;
	print(class, "clone", ended(native(SYS_clone, (long)flags | SIGCHLD, 0, 0, 0, 0)));
	print(class, "clone-upper-half", ended(native(SYS_clone, (long)flags | SIGCHLD | HIGH, 0, 0, 0, 0)));
	print(class, "clone3", ended(native(SYS_clone3, (long)args, sizeof(*args), 0, 0, 0)));
	print(class, "unshare", in_child(native, SYS_unshare, (long)flags));
	print(class, "i386-clone", ended(int80(120, (long)flags | SIGCHLD, 0, 0, 0, 0)));
	print(class, "i386-clone3", ended(int80(435, (long)args, sizeof(*args), 0, 0, 0)));
	print(class, "i386-unshare", in_child(int80, 310, (long)flags));
	print(class, "x32-clone", ended(x32(SYS_clone, (long)flags | SIGCHLD, 0, 0, 0, 0)));
	print(class, "x32-unshare", in_child(x32, SYS_unshare, (long)flags));
}

int main(void)
{
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	if (low == MAP_FAILED)
		return 2;
	setvbuf(stdout, NULL, _IONBF, 0); /* children take no text along */
	/* Closed by nobody. */
	sockets("stream", AF_INET, SOCK_STREAM, 0);
	sockets("route", AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	bound("route", NETLINK_ROUTE);
	namespaces("none", 0);

	sockets("xfrm", AF_NETLINK, SOCK_RAW, NETLINK_XFRM);
	sockets("xfrm-datagram", AF_NETLINK, SOCK_DGRAM, NETLINK_XFRM);
	bound("xfrm", NETLINK_XFRM);
	sockets("key", AF_KEY, SOCK_RAW, 2);
	sockets("packet", AF_PACKET, SOCK_RAW, 0);
	sockets("packet-of-inet", AF_INET, SOCK_PACKET, 0);
	option("ulp", 6, 31);
	namespaces("user", CLONE_NEWUSER);
	return 0;
}
