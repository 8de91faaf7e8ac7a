/* Attacks on "afalg-policy run", one a subcommand, and after "guard" those on
 * "afalg-policy lsm". Each prints lines of what it
 * tried and what came of it; an errno stands with the call that gave it. The
 * same program runs without the broker, to show that an attack is one. It makes
 * sockets, binds them and hashes three bytes: nothing here hurts a kernel.
 *
 *   gcc -o attack attack*.c -pthread      and the same with -m32 -static
 *   gcc -shared -fPIC -DPRELOAD -o preload.so attack*.c -pthread
 *
 * "hmac(sha512)" is what the policy allows, "sha256" what it does not. */
#include "attack.h"
#include <sys/prctl.h>
#include <sys/uio.h>

const char *const allowed = "hmac(sha512)", *const denied = "sha256";

/* The name of an errno, or "ok". */
const char *name_of(long result)
{
	return result >= 0 ? "ok" : strerrorname_np((int)-result);
}

long checked(long r)
{
	return r < 0 ? -errno : r;
}

void die(const char *what)
{
	fprintf(stderr, "attack: %s: %s\n", what, strerror(errno));
	exit(9);
}

struct sockaddr_alg address(const char *type, const char *name)
{
	struct sockaddr_alg a = { .salg_family = AF_ALG };
	strncpy((char *)a.salg_type, type, sizeof(a.salg_type));
	strncpy((char *)a.salg_name, name, sizeof(a.salg_name));
	return a;
}

long alg_socket(void)
{
	return checked(socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
}

long alg_bind(int fd, const char *name)
{
	struct sockaddr_alg a = address("hash", name);
	return checked(bind(fd, (struct sockaddr *)&a, sizeof(a)));
}

long alg_key(int fd)
{
	return checked(setsockopt(fd, SOL_ALG, ALG_SET_KEY, "0123456789abcdef", 16));
}

long alg_accept(int fd)
{
	return checked(accept4(fd, NULL, NULL, SOCK_CLOEXEC));
}

/* The length of the digest tells which algorithm an operation socket has. */
long digest_length(int op)
{
	char out[128];
	if (send(op, "abc", 3, 0) != 3)
		return -errno;
	return checked(recv(op, out, sizeof(out), 0));
}

/* accept and hash: "LABEL 64", or what failed. */
void finish(const char *label, int fd)
{
	long op = alg_accept(fd);
	if (op < 0) {
		printf("%s accept:%s\n", label, name_of(op));
		return;
	}
	long n = digest_length((int)op);
	if (n < 0)
		printf("%s digest:%s\n", label, name_of(n));
	else
		printf("%s %ld\n", label, n);
	close((int)op);
}

/* A socket, bound and with a key if the algorithm takes one; or an errno. */
static long parent(const char *name, const char **step)
{
	*step = "socket";
	long fd = alg_socket();
	if (fd < 0)
		return fd;
	*step = "bind";
	long r = alg_bind((int)fd, name);
	if (r < 0) {
		close((int)fd);
		return r;
	}
	alg_key((int)fd); /* plain hashes take none */
	return fd;
}

static void try_one(const char *label, const char *name)
{
	const char *step;
	long fd = parent(name, &step);
	if (fd < 0) {
		printf("%s %s:%s\n", label, step, name_of(fd));
		return;
	}
	finish(label, (int)fd);
	close((int)fd);
}

int must_parent(void)
{
	const char *step;
	long fd = parent(allowed, &step);
	if (fd < 0) {
		printf("%s %s:%s\n", allowed, step, name_of(fd));
		exit(0);
	}
	return (int)fd;
}

void cmd_try(void)
{
	try_one(allowed, allowed);
	try_one(denied, denied);
}

/* Ranges of lengths with one result. */
static void cmd_lengths(void)
{
	static const int families[] = { AF_ALG, 0, AF_UNIX, AF_INET, 65535 };
	for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
		const char *before = NULL;
		int first = 0;
		/* Names that are not there are looked for by modprobe: once is enough. */
		for (int len = f == 0 ? 25 : 37; len <= 129; len++) {
			const char *now = NULL;
			if (len <= 128) {
				long fd = alg_socket();
				if (fd < 0) {
					printf("socket %s\n", name_of(fd));
					return;
				}
				char buf[128] = { 0 };
				struct sockaddr_alg a = address("hash", allowed);
				a.salg_family = (unsigned short)families[f];
				memcpy(buf, &a, sizeof(a));
				now = name_of(checked(bind((int)fd, (void *)buf, (socklen_t)len)));
				long op = alg_accept((int)fd);
				if (op >= 0 && strcmp(now, "ok")) /* never */
					printf("family %d length %d: operation\n", families[f], len);
				if (op < 0 && !strcmp(now, "ok"))
					now = "ok, but unbound";
				if (op >= 0)
					close((int)op);
				close((int)fd);
				unlink("hash"); /* where a Unix socket was bound */
			}
			if (before && (!now || strcmp(now, before)))
				printf("family %d length %d-%d %s\n", families[f], first, len - 1, before);
			if (!before || !now || strcmp(now, before))
				first = len;
			before = now;
		}
	}
}

static void bind_raw(const char *label, struct sockaddr_alg *a)
{
	long fd = alg_socket();
	if (fd < 0) {
		printf("socket %s\n", name_of(fd));
		return;
	}
	long r = checked(bind((int)fd, (struct sockaddr *)a, sizeof(*a)));
	if (r < 0) {
		printf("%s %s\n", label, name_of(r));
	} else {
		alg_key((int)fd);
		finish(label, (int)fd);
	}
	close((int)fd);
}

static void cmd_names(void)
{
	static const char *const names[] = {
		"pcrypt(hmac(sha512))", "hmac(sha512-generic)", "sha512-generic", "sha512", "HMAC(SHA512)", "hmac(sha512) ",
		" hmac(sha512)", "hmac(hmac(sha512))", "hmac(sha512)x", "hmac(sha51", "hmac(sha256)", "",
	};
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		struct sockaddr_alg a = address("hash", names[i]);
		char label[80];
		snprintf(label, sizeof(label), "\"%s\"", names[i]);
		bind_raw(label, &a);
	}
	struct sockaddr_alg a = address("hash", "");
	memset(a.salg_name, 'x', sizeof(a.salg_name));
	bind_raw("64 bytes without end", &a);
	memset(a.salg_name, ' ', sizeof(a.salg_name));
	memcpy(a.salg_name, denied, strlen(denied));
	bind_raw("denied, filled with spaces", &a);
	a = address("hash", allowed);
	memcpy(a.salg_name + strlen(allowed) + 1, "sha256", 6);
	bind_raw("allowed, NUL, denied", &a);
	a = address("hash", denied);
	memcpy(a.salg_name + strlen(denied) + 1, allowed, strlen(allowed));
	bind_raw("denied, NUL, allowed", &a);
	a = address("hash", allowed);
	memcpy(a.salg_type + 5, "skcipher", 8);
	bind_raw("type, NUL, other type", &a);
	memset(a.salg_type, 'h', sizeof(a.salg_type));
	bind_raw("type without end", &a);
	a = address("hash\xc3", allowed);
	bind_raw("type with a byte more", &a);
	a = address("", allowed);
	bind_raw("no type", &a);
	a = address("skcipher", "cbc(aes)");
	bind_raw("skcipher", &a);
	a = address("aead", "gcm(aes)");
	bind_raw("aead", &a);
	a = address("rng", "stdrng");
	bind_raw("rng", &a);
	a = address("hash", allowed);
	a.salg_feat = a.salg_mask = 0xffffffff;
	bind_raw("all features", &a);
}

static void cmd_rebind(void)
{
	int fd = must_parent();
	printf("denied %s\n", name_of(alg_bind(fd, denied)));
	finish("still", fd);
	long op = alg_accept(fd);
	printf("allowed, operation open %s\n", name_of(alg_bind(fd, allowed)));
	printf("key, operation open %s\n", name_of(alg_key(fd)));
	long denied_now = alg_bind(fd, denied);
	printf("denied, operation open %s\n", denied_now < 0 ? "refused" : "ok");
	close((int)op);
	printf("allowed, operation closed %s\n", name_of(alg_bind(fd, allowed)));
	printf("key, operation closed %s\n", name_of(alg_key(fd)));
	finish("at last", fd);
	op = alg_accept(fd);
	if (op >= 0)
		printf("bind of an operation %s\n", name_of(alg_bind((int)op, allowed)));
}

static int send_fd(int over, int fd)
{
	char c = 'x', control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &c, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);
	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(h), &fd, sizeof(int));
	return sendmsg(over, &m, MSG_NOSIGNAL) == 1 ? 0 : -errno;
}

static int receive_fd(int over)
{
	char c, control[CMSG_SPACE(sizeof(int))];
	struct iovec iov = { &c, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control) };
	int fd = -1;
	if (recvmsg(over, &m, 0) == 1 && CMSG_FIRSTHDR(&m))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(int));
	return fd;
}

/* What a process does that got hold of a descriptor. */
static void cmd_holder(const char *how, const char *label, int fd)
{
	int over = fd;
	char text[80];
	if (strstr(how, "receive")) {
		fd = receive_fd(over);
		close(over);
	}
	if (strstr(how, "operation")) {
		printf("%s %ld\n", label, digest_length(fd));
		return;
	}
	finish(label, fd);
	snprintf(text, sizeof(text), "%s, rebound", label);
	printf("%s %s\n", text, name_of(alg_bind(fd, allowed)));
	alg_key(fd);
}

/* Runs another program, or this one if NULL, with a descriptor. */
static void give(const char *program, const char *how, const char *label, int fd)
{
	char number[16];
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		fcntl(fd, F_SETFD, 0);
		snprintf(number, sizeof(number), "%d", fd);
		if (!program)
			program = "/proc/self/exe";
		execl(program, program, "holder", how, label, number, NULL);
		die(program);
	}
	waitpid(pid, NULL, 0);
}

static void cmd_pass(const char *other, const char *self)
{
	int fd = must_parent(), pair[2];
	char number[16];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("socketpair");
	long op = alg_accept(fd);
	give(other, "operation", "operation, inherited by another binary", (int)op);
	send_fd(pair[0], (int)op);
	give(other, "receive operation", "operation, sent to another binary", pair[1]);
	close((int)op);
	int copy = dup(fd);
	finish("dup", copy);
	close(copy);
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		finish("fork", fd);
		fflush(stdout);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	give(self, "placeholder", "the same binary", fd);
	give(other, "placeholder", "another binary", fd);
	send_fd(pair[0], fd);
	give(other, "receive", "another binary, sent", pair[1]);
	send_fd(pair[0], fd);
	give(self, "receive", "the same binary, sent", pair[1]);
	finish("here still", fd);
	fcntl(fd, F_SETFD, 0);
	snprintf(number, sizeof(number), "%d", fd);
	fflush(stdout);
	execl(other, other, "holder", "kept", "kept over exec of another", number, NULL);
	die(other);
}

static void cmd_memory(void)
{
	long fd = alg_socket();
	if (fd < 0) {
		printf("socket %s\n", name_of(fd));
		return;
	}
	printf("key by serial %s\n", name_of(checked(setsockopt((int)fd, SOL_ALG, 7, "1234", 4))));
	char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct sockaddr_alg a = address("hash", allowed);
	munmap(page + 4096, 4096);
	void *across = memcpy(page + 4096 - 40, &a, 40);
	char *closed = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct { const char *what; void *p; } bad[] = {
		{ "null", NULL }, { "low", (void *)8 }, { "kernel", (void *)-4096L }, { "end", (void *)-1L },
		{ "unreadable", closed }, { "across the end", across },
	};
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		printf("bind %s %s\n", bad[i].what, name_of(checked(syscall(SYS_bind, (int)fd, bad[i].p, sizeof(a)))));
	alg_bind((int)fd, allowed);
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		printf("key %s %s\n", bad[i].what, name_of(checked(syscall(SYS_setsockopt, (int)fd, SOL_ALG, ALG_SET_KEY, bad[i].p, 64))));
	static const struct { const char *what; int option; unsigned length; } options[] = {
		{ "entropy", 6, 4 }, { "type 0", 0, 4 }, { "iv", ALG_SET_IV, 4 }, { "high", 0x7fffffff, 4 },
		{ "key of 128 KiB + 1", ALG_SET_KEY, (128 << 10) + 1 }, { "key of 2 GiB", ALG_SET_KEY, 0x7fffffff },
		{ "key of -1", ALG_SET_KEY, 0xffffffff }, { "key of 0", ALG_SET_KEY, 0 },
	};
	for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++)
		printf("%s %s\n", options[i].what,
		       name_of(checked(syscall(SYS_setsockopt, (int)fd, SOL_ALG, options[i].option, page, options[i].length))));
	printf("accept flags %s\n", name_of(checked(syscall(SYS_accept4, (int)fd, NULL, NULL, 1))));
	alg_key((int)fd);
	finish("in the end", (int)fd);
}

static void cmd_undumpable(void)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
	cmd_try();
}

static void cmd_shutdown(void)
{
	int fd = must_parent();
	for (int how = SHUT_RD; how <= SHUT_RDWR; how++)
		printf("shutdown %d %s\n", how, name_of(checked(shutdown(fd, how))));
	usleep(100000);
	printf("bind %s\n", name_of(alg_bind(fd, allowed)));
	finish("accept", fd);
	close(fd);
	cmd_try();
}

/* A placeholder sent over itself would keep itself open. */
static void cmd_itself(void)
{
	int fd = must_parent();
	printf("sent over itself %s\n", name_of(send_fd(fd, fd)));
	int other = must_parent();
	printf("sent over another %s\n", name_of(send_fd(other, fd)));
}

/* In a circle: each end of a pair lies in the other one's queue. */
void circle(void)
{
	int fd = must_parent(), pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("socketpair");
	send_fd(pair[0], pair[0]);
	send_fd(pair[0], fd);
	send_fd(pair[1], pair[1]);
	close(pair[0]);
	close(pair[1]);
	close(fd);
}

static void inherit(const char *what, char **argv)
{
	long fd = -1;
	if (!strcmp(what, "io_uring")) {
		char params[120] = { 0 };
		fd = checked(syscall(425, 4, params));
	} else {
		fd = must_parent();
		if (!strcmp(what, "operation"))
			fd = alg_accept((int)fd);
	}
	if (fd < 0)
		die(what);
	dup2((int)fd, 7); /* survives execve */
	execvp(argv[0], argv);
	die(argv[0]);
}

#ifdef PRELOAD
__attribute__((constructor)) static void preloaded(void)
{
	puts("preloaded");
	open("/gone", O_RDONLY | O_DIRECTORY | O_NOFOLLOW); /* tells a supervisor that it may go */
	cmd_try();
	fflush(stdout);
	_exit(0);
}
#endif

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } simple[] = {
		{ "try", cmd_try }, { "lengths", cmd_lengths }, { "names", cmd_names }, { "rebind", cmd_rebind },
		{ "traced", cmd_traced }, { "setmm", cmd_setmm }, { "filters", cmd_filters }, { "memory", cmd_memory },
		{ "undumpable", cmd_undumpable }, { "shutdown", cmd_shutdown }, { "itself", cmd_itself },
	};
	for (size_t i = 0; argc > 1 && i < sizeof(simple) / sizeof(*simple); i++)
		if (!strcmp(argv[1], simple[i].name)) {
			simple[i].run();
			return 0;
		}
	if (argc == 4 && !strcmp(argv[1], "pass"))
		cmd_pass(argv[2], argv[3]);
	else if (argc == 5 && !strcmp(argv[1], "holder"))
		cmd_holder(argv[2], argv[3], atoi(argv[4]));
	else if (argc == 3 && !strcmp(argv[1], "deleted") && unlink(argv[2]) == 0)
		cmd_try();
	else if (argc == 4 && !strcmp(argv[1], "renamed") && rename(argv[2], argv[3]) == 0)
		cmd_try();
	else if (argc > 3 && !strcmp(argv[1], "inherit"))
		inherit(argv[2], argv + 3);
	else if (argc > 2 && !strcmp(argv[1], "guard"))
		return attack_guard(argc, argv);
	else
		return attack_listener(argc, argv);
	return 0;
}
