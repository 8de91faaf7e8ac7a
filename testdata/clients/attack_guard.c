/* Attacks on "afalg-policy lsm", where one executable is listed and others are
 * not: routes, odd names, sockets that change hands or meaning. */
#include "attack.h"
#include <linux/io_uring.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>

#ifdef __x86_64__
static char *low; /* memory that 32-bit calls reach */

static long int80(long nr, long a, long b, long c)
{
	long ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}

static long low_address(const struct sockaddr_alg *a)
{
	memcpy(low + 1024, a, sizeof(*a));
	return (long)low + 1024;
}

static long socketcall(long which, unsigned a, unsigned b, unsigned c)
{
	unsigned args[3] = { a, b, c };
	memcpy(low, args, sizeof(args));
	return int80(102, which, (long)low, 0);
}

/* ---- A ring, by hand ---- */

static struct io_uring_params params;
static int ring = -1;
static char *queues;
static struct io_uring_sqe *entries;
enum { OP_BIND = 56 }; /* Linux 6.11 */

static long open_ring(void)
{
	ring = (int)checked(syscall(425, 4, &params));
	if (ring < 0)
		return ring;
	size_t size = params.cq_off.cqes + params.cq_entries * sizeof(struct io_uring_cqe);
	queues = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQ_RING);
	entries = mmap(NULL, params.sq_entries * sizeof(*entries), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	return queues == MAP_FAILED || entries == MAP_FAILED ? -errno : 0;
}

static long ring_call(int opcode, int flags, int fd, unsigned long address, unsigned long off)
{
	if (ring < 0 && open_ring() < 0)
		return -ENOSYS;
	unsigned *tail = (void *)(queues + params.sq_off.tail), *mask = (void *)(queues + params.sq_off.ring_mask);
	unsigned *index = (void *)(queues + params.sq_off.array), at = *tail & *mask;
	memset(&entries[at], 0, sizeof(*entries));
	entries[at].opcode = (unsigned char)opcode;
	entries[at].flags = (unsigned char)flags;
	entries[at].fd = fd;
	entries[at].addr = address;
	entries[at].off = off;
	index[at] = at;
	__atomic_store_n(tail, *tail + 1, __ATOMIC_RELEASE);
	if (syscall(426, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0) < 0)
		return -errno;
	unsigned *head = (void *)(queues + params.cq_off.head), *cq_mask = (void *)(queues + params.cq_off.ring_mask);
	long result = ((struct io_uring_cqe *)(void *)(queues + params.cq_off.cqes))[*head & *cq_mask].res;
	__atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
	return result;
}

static long make_high(void) { return checked(syscall(SYS_socket, AF_ALG | 7L << 32, SOCK_SEQPACKET | 7L << 32, 7L << 32)); }
static long make_int80(void) { return int80(359, AF_ALG, SOCK_SEQPACKET, 0); }
static long make_socketcall(void) { return socketcall(1, AF_ALG, SOCK_SEQPACKET, 0); }
static long make_x32(void) { return checked(syscall(0x40000000 + SYS_socket, AF_ALG, SOCK_SEQPACKET, 0)); }
static long make_ring(void) { return ring_call(IORING_OP_SOCKET, 0, AF_ALG, 0, SOCK_SEQPACKET); }
static long make_async(void) { return ring_call(IORING_OP_SOCKET, IOSQE_ASYNC, AF_ALG, 0, SOCK_SEQPACKET); }

static long bind_plain(int fd, const struct sockaddr_alg *a) { return checked(bind(fd, (const struct sockaddr *)a, sizeof(*a))); }
static long bind_int80(int fd, const struct sockaddr_alg *a) { return int80(361, fd, low_address(a), sizeof(*a)); }
static long bind_socketcall(int fd, const struct sockaddr_alg *a) { return socketcall(2, (unsigned)fd, (unsigned)low_address(a), sizeof(*a)); }
static long bind_x32(int fd, const struct sockaddr_alg *a) { return checked(syscall(0x40000000 + SYS_bind, fd, a, sizeof(*a))); }
static long bind_ring(int fd, const struct sockaddr_alg *a) { return ring_call(OP_BIND, 0, fd, (unsigned long)a, sizeof(*a)); }
static long bind_async(int fd, const struct sockaddr_alg *a) { return ring_call(OP_BIND, IOSQE_ASYNC, fd, (unsigned long)a, sizeof(*a)); }

/* Every way to a socket, and by the same way to its algorithm. */
static void cmd_routes(void)
{
	static const struct {
		const char *name;
		long (*make)(void), (*bind)(int, const struct sockaddr_alg *);
	} routes[] = {
		{ "socket", alg_socket, bind_plain }, { "high bits", make_high, bind_plain }, { "int $0x80", make_int80, bind_int80 },
		{ "socketcall", make_socketcall, bind_socketcall }, { "x32", make_x32, bind_x32 },
		{ "io_uring", make_ring, bind_ring }, { "io_uring, async", make_async, bind_async },
	};
	int pair[2];
	low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	for (size_t i = 0; i < sizeof(routes) / sizeof(*routes); i++) {
		long fd = routes[i].make();
		printf("%s %s", routes[i].name, name_of(fd));
		if (fd >= 0) {
			struct sockaddr_alg no = address("hash", denied), yes = address("hash", allowed);
			printf(", denied %s", name_of(routes[i].bind((int)fd, &no)));
			printf(", allowed %s", name_of(routes[i].bind((int)fd, &yes)));
			close((int)fd);
		}
		puts("");
	}
	printf("socketpair %s\n", name_of(checked(socketpair(AF_ALG, SOCK_SEQPACKET, 0, pair))));
}
#endif

/* ---- Names ---- */

static long ask(const char *type, const char *name, const char **step)
{
	struct sockaddr_alg a = address(type, name);
	*step = "socket";
	long fd = alg_socket();
	if (fd < 0)
		return fd;
	*step = "bind";
	long r = checked(bind((int)fd, (struct sockaddr *)&a, sizeof(a)));
	close((int)fd);
	return r;
}

static void cmd_ask(const char *type, const char *name)
{
	const char *step;
	long r = ask(type, name, &step);
	printf("%s:%s %s%s\n", type, name, r < 0 ? (*step == 's' ? "socket:" : "bind:") : "", name_of(r));
}

/* An address as long as the kernel takes any. */
static void odd(const char *label, const char *name, char fill, socklen_t size)
{
	char buf[128];
	long fd = alg_socket();
	memset(buf, fill, sizeof(buf));
	struct sockaddr_alg a = address("hash", "");
	memcpy(buf, &a, 24);
	memcpy(buf + 24, name, strlen(name));
	printf("%s %s\n", label, name_of(fd < 0 ? fd : checked(bind((int)fd, (void *)buf, size))));
	close((int)fd);
}

static void cmd_odd(void)
{
	odd("no name", "", 0, 24);
	odd("empty name", "", 0, 25);
	odd("103 bytes", "", 'x', 127);
	odd("104 bytes", "", 'x', 128);
	odd("allowed, filled up", allowed, 'x', 128);
	odd("allowed, cut off", allowed, 'x', 24 + 13);
	odd("star", "*", 0, 88);
	odd("path", "../hmac(sha512)", 0, 88);
}

/* ---- Sockets from before, and of others ---- */

static long bind_failing(int fd)
{
	struct sockaddr_alg a = address("hash", allowed);
	a.salg_feat = a.salg_mask = 0xffffffff;
	return checked(bind(fd, (struct sockaddr *)&a, sizeof(a)));
}

static int bound(const char *name)
{
	long fd = alg_socket();
	if (fd < 0 || alg_bind((int)fd, name) < 0)
		die(name);
	return (int)fd;
}

/* Makes sockets, waits for a load (a byte on standard input), and goes on. */
static void cmd_old(void)
{
	int unbound = (int)alg_socket(), other = bound(denied), failing = bound(denied), used = bound(denied);
	int op = (int)alg_accept(used);
	char c;
	printf("%d\n", getpid()); /* and the operation is at 7 */
	dup2(op, 7);
	fflush(stdout);
	if (read(0, &c, 1) != 1)
		die("wait");
	printf("unbound, denied %s\n", name_of(alg_bind(unbound, denied)));
	printf("unbound, allowed %s\n", name_of(alg_bind(unbound, allowed)));
	finish("bound", other);
	printf("bound, failing bind %s\n", name_of(bind_failing(failing)));
	finish("bound, after a failing bind", failing);
	printf("bound and used, bind %s\n", name_of(alg_bind(used, allowed)));
	finish("bound and used, after a bind", used);
	finish("operation, cloned", op);
	printf("operation %ld\n", digest_length(op));
}

/* Another executable may use what is denied here, and hands over a socket. */
static void cmd_lend(const char *to)
{
	char number[16];
	int fd = bound(denied);
	fcntl(fd, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", fd);
	execl(to, to, "guard", "lent", number, NULL);
	die(to);
}

static void cmd_lent(int fd)
{
	finish("lent", fd);
	printf("lent, failing bind %s\n", name_of(bind_failing(fd)));
	finish("lent, after a failing bind", fd);
	/* A socket on which the names of algorithms are tried, one after another. */
	int many = bound(allowed);
	printf("tried, denied %s\n", name_of(alg_bind(many, denied)));
	printf("tried, missing %s\n", name_of(alg_bind(many, "missing")));
	printf("tried, allowed %s\n", name_of(alg_bind(many, allowed)));
	alg_key(many);
	finish("tried", many);
}

/* ---- Zero-copy ---- */

static void spliced(const char *label, int fd, long (*send_pages)(int op))
{
	char out[128];
	long op = alg_accept(fd), sent = op < 0 ? op : checked(send_pages((int)op));
	long n = sent < 0 ? sent : checked(recv((int)op, out, sizeof(out), 0));
	if (n < 0)
		printf("%s %s:%s\n", label, sent < 0 ? "send" : "result", name_of(n));
	else
		printf("%s %ld\n", label, n);
	close((int)op);
}

static char page[4096] __attribute__((aligned(4096)));

static long by_splice(int op)
{
	int p[2];
	if (pipe(p) < 0 || write(p[1], "abc", 3) != 3)
		die("pipe");
	return splice(p[0], NULL, op, NULL, 3, 0);
}

static long by_vmsplice(int op)
{
	int p[2];
	struct iovec v = { page, 3 };
	if (pipe(p) < 0 || vmsplice(p[1], &v, 1, 0) != 3)
		die("vmsplice");
	return splice(p[0], NULL, op, NULL, 3, 0);
}

static long by_sendfile(int op)
{
	int f = open("/proc/self/exe", O_RDONLY);
	return sendfile(op, f, NULL, 3);
}

static long by_send(int op) { return send(op, "abc", 3, 0); }
static long by_write(int op) { return write(op, "abc", 3); }
static long by_zerocopy(int op) { return send(op, "abc", 3, MSG_ZEROCOPY); }
static long by_flag(int op) { return send(op, page, 3, 0x8000000 /* MSG_SPLICE_PAGES */); }

static void cmd_zerocopy(void)
{
	int fd = must_parent();
	spliced("splice", fd, by_splice);
	spliced("send after splice", fd, by_send);
	spliced("vmsplice", fd, by_vmsplice);
	spliced("sendfile", fd, by_sendfile);
	spliced("send", fd, by_send);
	spliced("write", fd, by_write);
	spliced("MSG_ZEROCOPY", fd, by_zerocopy);
	spliced("MSG_SPLICE_PAGES", fd, by_flag);
}

int attack_guard(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "";
#ifdef __x86_64__
	if (!strcmp(what, "routes"))
		cmd_routes();
	else
#endif
	if (!strcmp(what, "odd"))
		cmd_odd();
	else if (!strcmp(what, "old"))
		cmd_old();
	else if (!strcmp(what, "zerocopy"))
		cmd_zerocopy();
	else if (argc > 4 && !strcmp(what, "ask"))
		for (int i = 4; i < argc; i++)
			cmd_ask(argv[3], argv[i]);
	else if (argc == 4 && !strcmp(what, "lend"))
		cmd_lend(argv[3]);
	else if (argc == 4 && !strcmp(what, "lent"))
		cmd_lent(atoi(argv[3]));
	else
		return attack_steering(argc, argv);
	return 0;
}
