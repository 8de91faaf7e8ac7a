// Makes system calls under seccomp filters and says what the kernel answered.
//
// On standard input come cases, in the machine's own byte order:
//   u32 programs; for each: u32 instructions, struct sock_filter[]
//   u32 calls; for each: struct call
// and for each call of a case a struct answer goes to standard output. The
// calls of a case are made one after the other by a child under its filters,
// and by another child from the next call on if one kills it.
//
// "oracle sleep N" reads one case and leaves N children asleep under its
// filters, until standard input closes.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { BY_SYSCALL, BY_INT80, IO_URING_SOCKET, IO_URING_SOCKET_32 };
enum { RETURNED, KILLED, NOT_INSTALLED };

struct call {
	uint64_t how;
	uint64_t nr;      // of io_uring_setup for IO_URING_SOCKET*
	uint64_t args[6]; // the family for IO_URING_SOCKET*
};

struct answer {
	int64_t what;
	int64_t value; // what the call returned, the signal, the errno
};

// What 32-bit pointers point to: the arguments of socketcall, and room for
// two descriptors.
#define LOW_PAGE 0x10000
#define PAIR (LOW_PAGE + 0x800)

enum { MAX_PROGRAMS = 64, MAX_CALLS = 4096 };

static struct sock_fprog programs[MAX_PROGRAMS];
static struct call calls[MAX_CALLS];
static struct answer *answers; // shared with the children

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static long call64(uint64_t nr, const uint64_t *a)
{
	register uint64_t r10 __asm__("r10") = a[3], r8 __asm__("r8") = a[4], r9 __asm__("r9") = a[5];
	long ret;
	__asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a[0]), "S"(a[1]), "d"(a[2]), "r"(r10), "r"(r8), "r"(r9)
		: "rcx", "r11", "memory");
	return ret;
}

// The upper halves of the registers stay: a filter sees them, and the call
// does not.
static long call32(uint32_t nr, const uint64_t *a)
{
	long ret;
	__asm__ volatile(
		"mov %%rbp, %%r12\n\t"
		"mov (%%rsi), %%rbx\n\tmov 8(%%rsi), %%rcx\n\tmov 16(%%rsi), %%rdx\n\t"
		"mov 32(%%rsi), %%rdi\n\tmov 40(%%rsi), %%rbp\n\tmov 24(%%rsi), %%rsi\n\t"
		"int $0x80\n\tmov %%r12, %%rbp"
		: "=a"(ret), "+S"(a) : "0"((uint64_t)nr)
		: "rbx", "rcx", "rdx", "rdi", "r8", "r9", "r10", "r11", "r12", "memory");
	return (int32_t)ret;
}

// io_uring_socket has a ring make a socket: setup and enter are the two calls
// that a filter sees. Their numbers follow each other.
static long io_uring_socket(const struct call *c)
{
	int by_int80 = c->how == IO_URING_SOCKET_32;
	struct io_uring_params *p = (void *)(LOW_PAGE + 0xc00);
	memset(p, 0, sizeof(*p));
	uint64_t setup[6] = {1, (uint64_t)p};
	long fd = by_int80 ? call32(c->nr, setup) : call64(c->nr, setup);
	if (fd < 0)
		return fd;
	size_t size = p->cq_off.cqes + p->cq_entries * sizeof(struct io_uring_cqe);
	char *ring = mmap(0, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQ_RING);
	struct io_uring_sqe *sqe = mmap(0, sizeof(*sqe), PROT_READ | PROT_WRITE, MAP_SHARED, fd, IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqe == MAP_FAILED)
		return -errno;
	const unsigned char IORING_SOCKET = 45;
	sqe->opcode = IORING_SOCKET;
	sqe->fd = c->args[0];  // the family
	sqe->off = 5;          // SOCK_SEQPACKET
	*(unsigned *)(ring + p->sq_off.array) = 0;
	*(volatile unsigned *)(ring + p->sq_off.tail) = 1;
	uint64_t enter[6] = {fd, 1, 1, IORING_ENTER_GETEVENTS};
	long n = by_int80 ? call32(c->nr + 1, enter) : call64(c->nr + 1, enter);
	if (n < 0)
		return n;
	return ((struct io_uring_cqe *)(ring + p->cq_off.cqes))->res;
}

static long make(const struct call *c)
{
	switch (c->how) {
	case BY_SYSCALL: return call64(c->nr, c->args);
	case BY_INT80: return call32(c->nr, c->args);
	default: return io_uring_socket(c);
	}
}

static int install(unsigned n)
{
	prctl(PR_SET_DUMPABLE, 0, 0, 0, 0); // no core of those that are killed
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return errno;
	for (unsigned i = 0; i < n; i++)
		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &programs[i]))
			return errno;
	return 0;
}

// child answers from a call on. It never returns: where the filters deny its
// exit, it dies.
static void child(unsigned n, unsigned from, unsigned to)
{
	int err = install(n);
	for (unsigned i = from; i < to; i++) {
		if (err) {
			answers[i] = (struct answer){NOT_INSTALLED, err};
			continue;
		}
		long value = make(&calls[i]);
		answers[i] = (struct answer){RETURNED, value};
	}
	uint64_t none[6] = {0};
	call64(SYS_exit_group, none);
	__builtin_trap();
}

static void get(void *to, size_t size)
{
	if (fread(to, size, 1, stdin) != 1)
		die("read a case");
}

static unsigned get_programs(void)
{
	uint32_t n, len;
	if (fread(&n, sizeof(n), 1, stdin) != 1)
		exit(0);
	if (n > MAX_PROGRAMS)
		die("too many programs");
	for (unsigned i = 0; i < n; i++) {
		get(&len, sizeof(len));
		programs[i].len = len;
		free(programs[i].filter);
		programs[i].filter = malloc(len * sizeof(struct sock_filter));
		get(programs[i].filter, len * sizeof(struct sock_filter));
	}
	return n;
}

static void run_case(unsigned n)
{
	uint32_t count;
	get(&count, sizeof(count));
	if (count > MAX_CALLS)
		die("too many calls");
	get(calls, count * sizeof(struct call));
	const int64_t pending = -1;
	for (unsigned i = 0; i < count; i++)
		answers[i].what = pending;
	for (unsigned from = 0; from < count;) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0)
			child(n, from, count);
		int status;
		if (waitpid(pid, &status, 0) != pid)
			die("wait");
		while (from < count && answers[from].what != pending)
			from++;
		if (from < count) {
			if (!WIFSIGNALED(status))
				die("a child ended early");
			answers[from++] = (struct answer){KILLED, WTERMSIG(status)};
		}
	}
	if (fwrite(answers, sizeof(struct answer), count, stdout) != count)
		die("write");
	fflush(stdout);
}

static int sleepers(unsigned n, int count)
{
	int err = install(n);
	if (err) {
		errno = err;
		die("install");
	}
	for (int i = 0; i < count; i++) {
		pid_t pid = fork();
		if (pid < 0)
			die("fork");
		if (pid == 0) {
			// A parent that is gone before this sends no signal, so that the
			// number is told after it.
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			printf("%d\n", getpid());
			fflush(stdout);
			for (;;)
				pause();
		}
	}
	while (getchar() != EOF)
		;
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "sleep"))
		return sleepers(get_programs(), atoi(argv[2]));
	answers = mmap(0, MAX_CALLS * sizeof(struct answer), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint32_t *low = mmap((void *)LOW_PAGE, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (answers == MAP_FAILED || low == MAP_FAILED)
		die("mmap");
	uint32_t socket_arguments[] = {38, 5, 0, PAIR}; // AF_ALG, SOCK_SEQPACKET
	memcpy(low, socket_arguments, sizeof(socket_arguments));
	for (;;)
		run_case(get_programs());
}
