/* Attacks on processes, the broker's among them, and those by socketcall. */
#include "attack.h"
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77
#endif
#ifndef PR_SET_MM_MAP_SIZE
#define PR_SET_MM_MAP_SIZE 15
#endif
#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

int parent_of(int pid)
{
	char path[40], text[400] = "";
	int parent = -1;
	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	FILE *f = fopen(path, "r");
	if (f && fgets(text, sizeof(text), f) && strrchr(text, ')'))
		sscanf(strrchr(text, ')') + 1, " %*c %d", &parent);
	if (f)
		fclose(f);
	return parent;
}

static void open_file(const char *who, int pid, const char *file, int flags)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
	long fd = checked(open(path, flags | O_CLOEXEC));
	printf("%s %s %s\n", who, file, name_of(fd));
	if (fd >= 0)
		close((int)fd);
}

/* All that leads into another process. */
static void rob(const char *who, int pid)
{
	long pidfd = checked(syscall(SYS_pidfd_open, pid, 0));
	long got = -EPERM; /* any descriptor will do */
	for (int fd = 0; fd < 32; fd++) {
		long r = checked(syscall(SYS_pidfd_getfd, (int)pidfd, fd, 0));
		if (r >= 0)
			close((int)r);
		if (r != -EBADF)
			got = r;
		if (r >= 0)
			break;
	}
	printf("%s pidfd_getfd %s\n", who, name_of(got));
	open_file(who, pid, "fd/2", O_RDONLY);
	open_file(who, pid, "mem", O_RDWR);
	open_file(who, pid, "environ", O_RDONLY);
	open_file(who, pid, "cwd", O_RDONLY);
	open_file(who, pid, "ns/net", O_RDONLY);
	char here[8];
	struct iovec local = { here, 8 }, remote = { (void *)&allowed, 8 };
	long r = checked(syscall(SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0));
	printf("%s process_vm_readv %s\n", who, name_of(r == -EFAULT ? 0 : r)); /* EFAULT: it was let in */
	r = checked(ptrace(PTRACE_SEIZE, pid, 0, 0));
	printf("%s ptrace %s\n", who, name_of(r));
	close((int)pidfd);
}

static void cmd_rob(void)
{
	int broker = getppid(), guard = parent_of(broker);
	pid_t child = fork();
	if (child == 0)
		for (;;)
			pause();
	rob("child", child);
	kill(child, SIGKILL);
	rob("broker", broker);
	rob("guard", guard);
	long fd = alg_socket();
	if (fd < 0) {
		printf("socket %s\n", name_of(fd));
		return;
	}
	struct ucred c = { 0 };
	socklen_t size = sizeof(c);
	long r = checked(getsockopt((int)fd, SOL_SOCKET, SO_PEERCRED, &c, &size));
	printf("SO_PEERCRED %s\n", r < 0 ? name_of(r) : c.pid == broker ? "broker" : c.pid == guard ? "guard" : "other");
	int pidfd = -1, pid = 0;
	size = sizeof(pidfd);
	r = checked(getsockopt((int)fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &size));
	if (r < 0) {
		printf("SO_PEERPIDFD %s\n", name_of(r));
		return;
	}
	char path[40], line[100];
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f))
		sscanf(line, "Pid: %d", &pid);
	printf("SO_PEERPIDFD %s\n", pid == broker ? "broker" : pid == guard ? "guard" : "other");
	printf("SO_PEERPIDFD, pidfd_getfd %s\n", name_of(checked(syscall(SYS_pidfd_getfd, pidfd, 0, 0))));
}

/* A debugger at work: before the start, or between bind and accept. */
void cmd_traced(void)
{
	int status;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		execl("/proc/self/exe", "attack", "try", NULL);
		_exit(9);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, pid, 0, 0);
	int ready[2], go[2];
	char c;
	if (pipe(ready) < 0 || pipe(go) < 0)
		die("pipe");
	pid = fork();
	if (pid == 0) {
		int fd = must_parent();
		if (write(ready[1], "r", 1) != 1 || read(go[0], &c, 1) != 1)
			_exit(9);
		finish("attached after bind", fd);
		fflush(stdout);
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1) /* it was refused, and said so */
		return;
	long attached = checked(ptrace(PTRACE_SEIZE, pid, 0, 0));
	printf("attach %s\n", name_of(attached));
	fflush(stdout);
	if (write(go[1], "g", 1) != 1)
		die("go");
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, pid, 0, WSTOPSIG(status));
}

#ifdef __x86_64__
static long int80(long nr, long a, long b, long c)
{
	long ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}
#endif

/* Forging /proc/self/exe begins with PR_SET_MM. The size asked for needs no
 * privilege. */
void cmd_setmm(void)
{
	unsigned size;
	printf("PR_SET_MM %s\n", name_of(checked(prctl(PR_SET_MM, PR_SET_MM_MAP_SIZE, &size, 0, 0))));
#ifdef __x86_64__
	long high = PR_SET_MM | 7L << 32;
	printf("high bits %s\n", name_of(checked(syscall(SYS_prctl, high, PR_SET_MM_MAP_SIZE, &size, 0, 0))));
	int *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	printf("int $0x80 %s\n", name_of(int80(172, PR_SET_MM, PR_SET_MM_MAP_SIZE, (long)low)));
	printf("x32 %s\n", name_of(checked(syscall(0x40000000 + SYS_prctl, PR_SET_MM, PR_SET_MM_MAP_SIZE, low, 0, 0))));
#endif
}

static long load(unsigned flags, unsigned verdict)
{
	struct sock_filter insns[] = { BPF_STMT(BPF_RET | BPF_K, verdict) };
	struct sock_fprog prog = { 1, insns };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog));
}

void cmd_filters(void)
{
	long fd = load(SECCOMP_FILTER_FLAG_NEW_LISTENER, SECCOMP_RET_ALLOW);
	printf("listener %s\n", name_of(fd));
	printf("allow %s\n", name_of(load(0, SECCOMP_RET_ALLOW)));
	printf("log %s\n", name_of(load(0, SECCOMP_RET_LOG)));
	cmd_try();
}

#ifdef __i386__

/* socketcall itself; the C library may choose another call. */
static long call(long which, const long *args)
{
	long ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(SYS_socketcall), "b"(which), "c"(args) : "memory");
	return ret;
}

enum { SOCKET = 1, BIND = 2, CONNECT = 3, LISTEN = 4, ACCEPT = 5, SOCKETPAIR = 8, SETSOCKOPT = 14, ACCEPT4 = 18 };
#define CALL(which, ...) call(which, (long[]){ __VA_ARGS__ })

static void moves(const char *what, int a, int b)
{
	char c = 0;
	struct pollfd arrived = { b, POLLIN, 0 };
	long w = checked(write(a, "x", 1));
	if (w > 0) /* a busy kernel delivers a datagram later */
		poll(&arrived, 1, -1);
	long r = w < 0 ? w : checked(read(b, &c, 1));
	printf("%s %s\n", what, r == 1 && c == 'x' ? "ok" : name_of(r));
}

static void stream(const char *what, int family, void *addr, socklen_t size)
{
	long l = CALL(SOCKET, family, SOCK_STREAM, 0);
	if (l < 0) {
		printf("%s socket:%s\n", what, name_of(l));
		return;
	}
	int one = 1;
	CALL(SETSOCKOPT, l, SOL_SOCKET, SO_REUSEADDR, (long)&one, sizeof(one));
	long b = CALL(BIND, l, (long)addr, (long)size);
	getsockname((int)l, addr, &size);
	CALL(LISTEN, l, 1);
	long c = CALL(SOCKET, family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	long r = CALL(CONNECT, c, (long)addr, (long)size);
	long s = b < 0 || r < 0 ? -EAGAIN : CALL(ACCEPT, l, 0, 0);
	if (s < 0) {
		printf("%s bind:%s connect:%s accept:%s\n", what, name_of(b), name_of(r), name_of(s));
		return;
	}
	if (!(fcntl((int)c, F_GETFD) & FD_CLOEXEC) || fcntl((int)l, F_GETFD) & FD_CLOEXEC)
		printf("%s close-on-exec wrong\n", what);
	moves(what, (int)c, (int)s);
}

static void datagram(const char *what, int family, void *addr, socklen_t size)
{
	long s = CALL(SOCKET, family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	long b = CALL(BIND, s, (long)addr, (long)size);
	getsockname((int)s, addr, &size);
	long r = CALL(CONNECT, s, (long)addr, (long)size);
	if (s < 0 || b < 0 || r < 0)
		printf("%s socket:%s bind:%s connect:%s\n", what, name_of(s), name_of(b), name_of(r));
	else if (!(fcntl((int)s, F_GETFL) & O_NONBLOCK))
		printf("%s blocks\n", what);
	else
		moves(what, (int)s, (int)s);
}

static void pair(const char *what, int kind)
{
	int fds[2];
	long r = CALL(SOCKETPAIR, AF_UNIX, kind, 0, (long)fds);
	if (r < 0)
		printf("%s %s\n", what, name_of(r));
	else
		moves(what, fds[0], fds[1]);
}

static void cmd_ordinary(void)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct sockaddr_in in2 = in;
	struct sockaddr_in6 in6 = { .sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT };
	struct sockaddr_un un = { .sun_family = AF_UNIX, .sun_path = "\0attack-stream" };
	struct sockaddr_un un2 = { .sun_family = AF_UNIX, .sun_path = "\0attack-dgram" };
	alarm(PATIENCE);
	stream("tcp4", AF_INET, &in, sizeof(in));
	stream("tcp6", AF_INET6, &in6, sizeof(in6));
	datagram("udp4", AF_INET, &in2, sizeof(in2));
	stream("unix stream", AF_UNIX, &un, 20);
	datagram("unix datagram", AF_UNIX, &un2, 20);
	pair("socketpair stream", SOCK_STREAM);
	pair("socketpair datagram", SOCK_DGRAM);
	pair("socketpair seqpacket", SOCK_SEQPACKET);
	printf("raw %s\n", name_of(CALL(SOCKET, AF_INET, SOCK_RAW, IPPROTO_ICMP)));
	printf("packet %s\n", name_of(CALL(SOCKET, AF_PACKET, SOCK_RAW, 0)));
	printf("family 63 %s\n", name_of(CALL(SOCKET, 63, SOCK_STREAM, 0)));
	printf("alg socketpair %s\n", name_of(CALL(SOCKETPAIR, AF_ALG, SOCK_SEQPACKET, 0, (long)(int[2]){ 0, 0 })));
	printf("null arguments %s\n", name_of(call(SOCKET, NULL)));
	printf("call 99 %s\n", name_of(call(99, NULL)));
}

static void by_socketcall(const char *name)
{
	struct sockaddr_alg a = address("hash", name);
	long fd = CALL(SOCKET, AF_ALG, SOCK_SEQPACKET, 0);
	if (fd < 0) {
		printf("%s socket:%s\n", name, name_of(fd));
		return;
	}
	long r = CALL(BIND, fd, (long)&a, sizeof(a));
	if (r < 0) {
		printf("%s bind:%s\n", name, name_of(r));
		return;
	}
	CALL(SETSOCKOPT, fd, SOL_ALG, ALG_SET_KEY, (long)"0123456789abcdef", 16);
	long op = CALL(ACCEPT, fd, 0, 0), op4 = CALL(ACCEPT4, fd, 0, 0, SOCK_CLOEXEC);
	if (op < 0 || op4 < 0)
		printf("%s accept:%s accept4:%s\n", name, name_of(op), name_of(op4));
	else
		printf("%s %ld %ld\n", name, digest_length((int)op), digest_length((int)op4));
}

static volatile int over;
static volatile long block[3];

static void *move_family(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !over; i++) {
		block[0] = i & 1 ? AF_ALG : AF_UNIX;
		sched_yield();
	}
	return NULL;
}

/* The family changes while the call is decided. */
static void cmd_family(long n)
{
	pthread_t thread;
	long made = 0, refused = 0, alg = 0;
	block[0] = AF_UNIX;
	block[1] = SOCK_SEQPACKET;
	pthread_create(&thread, NULL, move_family, NULL);
	for (long i = 0; i < n; i++) {
		int domain = -1, protocol = -1;
		long fd = call(SOCKET, (const long *)block);
		if (fd < 0) {
			refused++;
			continue;
		}
		made++;
		socklen_t size = sizeof(domain);
		getsockopt((int)fd, SOL_SOCKET, SO_DOMAIN, &domain, &size);
		getsockopt((int)fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size);
		alg += domain != AF_UNIX || protocol != 0;
		close((int)fd);
	}
	over = 1;
	pthread_join(thread, NULL);
	fprintf(stderr, "tries %ld made %ld refused %ld AF_ALG %ld\n", n, made, refused, alg);
	printf("made %s\nrefused %s\nAF_ALG %s\n", made ? "some" : "none", refused ? "some" : "none", alg ? "some" : "none");
}

/* Calls that fail only when they are carried out. */
static void cmd_failing(long n)
{
	long r = 0, s = 0;
	for (long i = 0; i < n; i++) {
		int fds[2];
		r = CALL(SOCKETPAIR, AF_INET, SOCK_STREAM, 0, (long)fds);
		s = CALL(SOCKET, AF_INET, SOCK_RAW, IPPROTO_ICMP);
	}
	printf("socketpair %s\nraw %s\n", name_of(r), name_of(s));
}

static unsigned long long cookie(long fd)
{
	unsigned long long v = 0;
	socklen_t size = sizeof(v);
	if (fd < 0 || getsockopt((int)fd, SOL_SOCKET, SO_NETNS_COOKIE, &v, &size) < 0)
		die("SO_NETNS_COOKIE");
	return v;
}

static void cmd_namespace(void)
{
	unsigned long long first = cookie(CALL(SOCKET, AF_INET, SOCK_STREAM, 0));
	printf("as by socket %s\n", first == cookie(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)) ? "yes" : "no");
	if (unshare(CLONE_NEWNET) < 0)
		die("unshare");
	unsigned long long second = cookie(CALL(SOCKET, AF_INET, SOCK_STREAM, 0));
	printf("another one %s\n", second != first ? "yes" : "no");
	printf("as by socket %s\n", second == cookie(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0)) ? "yes" : "no");
}

#define CUT_OFF "/sys/fs/cgroup/attack"

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, text, strlen(text)) != (ssize_t)strlen(text))
		die(path);
	close(fd);
}

/* Drops what the sockets of a cgroup send. */
static void drop_egress(const char *cgroup)
{
	const struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_SKB, .insn_cnt = 2,
		.insns = (unsigned long)code, .license = (unsigned long)"GPL",
	};
	long program = syscall(SYS_bpf, BPF_PROG_LOAD, &load, sizeof(load));
	if (program < 0)
		die("BPF_PROG_LOAD");
	union bpf_attr attach = {
		.target_fd = open(cgroup, O_RDONLY), .attach_bpf_fd = program, .attach_type = BPF_CGROUP_INET_EGRESS,
	};
	if (syscall(SYS_bpf, BPF_PROG_ATTACH, &attach, sizeof(attach)) < 0)
		die("BPF_PROG_ATTACH");
}

static void sends(const char *what, long fd)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = 9, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	long r = fd < 0 ? fd : checked(sendto((int)fd, "x", 1, 0, (void *)&in, sizeof(in)));
	printf("%s %s\n", what, r == 1 ? "sent" : name_of(r));
}

static void send_both(const char *who)
{
	printf("%s\n", who);
	sends("by socketcall", CALL(SOCKET, AF_INET, SOCK_DGRAM, 0));
	sends("by socket", syscall(SYS_socket, AF_INET, SOCK_DGRAM, 0));
}

/* A cgroup that is cut off from the network: whoever made its sockets. */
static void cmd_cgroup(void)
{
	mkdir(CUT_OFF, 0755);
	send_both("outside");
	drop_egress(CUT_OFF);
	write_file(CUT_OFF "/cgroup.procs", "0");
	send_both("inside");
	if (syscall(SYS_setresuid32, 65534, 65534, 65534) < 0)
		die("setresuid");
	send_both("inside, an ordinary user");
}

int attack_tree(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "rob")) {
		cmd_rob();
	} else if (argc == 2 && !strcmp(argv[1], "ordinary")) {
		cmd_ordinary();
	} else if (argc == 2 && !strcmp(argv[1], "socketcall")) {
		by_socketcall(allowed);
		by_socketcall(denied);
	} else if (argc == 2 && !strcmp(argv[1], "namespace")) {
		cmd_namespace();
	} else if (argc == 2 && !strcmp(argv[1], "cgroup")) {
		cmd_cgroup();
	} else if (argc == 3 && !strcmp(argv[1], "failing")) {
		alarm(PATIENCE);
		cmd_phases(cmd_failing, atol(argv[2]));
	} else if (argc == 3 && !strcmp(argv[1], "family")) {
		cmd_family(atol(argv[2]));
	} else {
		fprintf(stderr, "attack: unknown attack\n");
		return 2;
	}
	return 0;
}

#else

int attack_tree(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "rob")) {
		cmd_rob();
		return 0;
	}
	fprintf(stderr, "attack: unknown attack\n");
	return 2;
}

#endif
