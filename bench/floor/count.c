/* Reads the processor's counter around calls that the kernel half hooks, and
 * around some that it does not. Where the machine counts instructions by it, the
 * figures are exact.
 *
 * Use: count BATCHES. Prints a line for each call: a name, a tab, the ticks of one
 * call in the fastest batch.
 *      count exit. Does nothing: what is started and ends. */
#define _GNU_SOURCE
#include "session.h"
#include <elf.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/un.h>
#include <sys/wait.h>

static int datagram, listener, pair[2], little;
static char link_of_child[64];
static struct sockaddr_un own;
static socklen_t own_size = sizeof own;

static inline unsigned long ticks(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	return nanoseconds();
#endif
}

static int call_nothing(void) { return 0; }
static int call_getppid(void) { return getppid() < 0; }

static int call_socket(void) { return close(socket(AF_INET, SOCK_DGRAM, 0)); }

static int call_bind(void)
{
	static const struct sockaddr_in none = { .sin_family = AF_INET };
	return !bind(datagram, (const struct sockaddr *)&none, 1); /* EINVAL */
}

static int call_socket_bind(void)
{
	static const struct sockaddr_in any = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);
	return bind(fd, (const struct sockaddr *)&any, sizeof any) | close(fd);
}

static int call_accept(void)
{
	int ours = socket(AF_UNIX, SOCK_STREAM, 0), theirs;
	int failed = connect(ours, (const struct sockaddr *)&own, own_size);
	theirs = accept(listener, NULL, NULL);
	return failed | close(ours) | close(theirs);
}

static int call_send(void)
{
	char c = 0;
	return send(pair[0], &c, 1, 0) != 1 || recv(pair[1], &c, 1, 0) != 1;
}

static int call_prctl(void) { return prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) < 0; }

static int call_readlink(void)
{
	char text[512];
	return readlink(link_of_child, text, sizeof text) < 0;
}

/* A program of a few instructions: what has more is interrupted by the clock. */
static int little_program(void)
{
#ifdef __x86_64__
	static const struct {
		Elf64_Ehdr head;
		Elf64_Phdr segment;
		unsigned char code[9]; /* exit(0) */
	} program = {
		.head = {
			.e_ident = { ELFMAG0, ELFMAG1, ELFMAG2, ELFMAG3, ELFCLASS64, ELFDATA2LSB, EV_CURRENT },
			.e_type = ET_EXEC, .e_machine = EM_X86_64, .e_version = EV_CURRENT,
			.e_entry = 0x400000 + sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr), .e_phoff = sizeof(Elf64_Ehdr),
			.e_ehsize = sizeof(Elf64_Ehdr), .e_phentsize = sizeof(Elf64_Phdr), .e_phnum = 1,
		},
		.segment = {
			.p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_vaddr = 0x400000, .p_align = 0x1000,
			.p_filesz = sizeof program, .p_memsz = sizeof program,
		},
		.code = { 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05 },
	};
	int fd = memfd_create("little", 0), open_again;
	char path[32];
	if (fd < 0 || write(fd, &program, sizeof program) != sizeof program)
		return -1;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	open_again = open(path, O_RDONLY);
	return close(fd), open_again; /* what is open for writing cannot be started */
#else
	return open("/proc/self/exe", O_RDONLY);
#endif
}

static int start(void)
{
	static char *const args[] = { "count", "exit", NULL };
	static char *const none[] = { NULL };
	int status = 0;
	pid_t child = vfork();
	if (!child) {
		fexecve(little, args, none);
		_exit(127);
	}
	return child < 0 || waitpid(child, &status, 0) != child || status;
}

static int call_alg(void)
{
	static const struct sockaddr_alg address = {
		.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "hmac(sha512)",
	};
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
	return bind(fd, (const struct sockaddr *)&address, sizeof address) | close(fd);
}

static const struct {
	const char *name;
	int calls; /* in a batch: what takes long is interrupted */
	int (*call)(void);
} counted[] = {
	{ "getppid", 16, call_getppid },
	{ "socket, close: UDP", 16, call_socket },
	{ "bind that fails at once: UDP", 16, call_bind },
	{ "socket, bind, close: UDP", 8, call_socket_bind },
	{ "socket, connect, accept, close: UNIX", 8, call_accept },
	{ "send, recv: UNIX", 16, call_send },
	{ "prctl", 16, call_prctl },
	{ "readlink of /proc/PID/exe", 8, call_readlink },
	{ "vfork, exec, exit", 1, start },
	{ "socket, bind, close: ALG", 4, call_alg },
};

enum { COUNTED = sizeof counted / sizeof *counted };

static unsigned long batch(int (*call)(void), int calls, int *failed)
{
	unsigned long began = ticks();
	for (int i = 0; i < calls; i++)
		*failed |= call();
	return ticks() - began;
}

static double fastest(int (*call)(void), int calls, int batches, int *failed)
{
	unsigned long best = -1UL;
	for (int i = 0; i < batches; i++) {
		unsigned long took = batch(call, calls, failed);
		if (took < best)
			best = took;
	}
	return (double)best / calls;
}

static void prepare(void)
{
	struct sockaddr_un autobind = { .sun_family = AF_UNIX };
	datagram = socket(AF_INET, SOCK_DGRAM, 0);
	little = little_program();
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(listener, (struct sockaddr *)&autobind, sizeof autobind.sun_family) || listen(listener, 1) ||
	    getsockname(listener, (struct sockaddr *)&own, &own_size) || socketpair(AF_UNIX, SOCK_DGRAM, 0, pair))
		perror("sockets"), exit(2);
}

int main(int argc, char **argv)
{
	int batches = argc == 2 ? atoi(argv[1]) : 0;
	if (argc == 2 && !strcmp(argv[1], "exit"))
		return 0;
	if (batches < 10)
		return fprintf(stderr, "usage: count BATCHES (10 at least), or count exit\n"), 2;
	personality(ADDR_NO_RANDOMIZE); /* what is started is laid out the same each time */
	prepare();
	pid_t child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	snprintf(link_of_child, sizeof link_of_child, "/proc/%d/exe", child);
	int failed = 0;
	for (int n = 0; n < COUNTED; n++) {
		int calls = counted[n].calls;
		double loop = fastest(call_nothing, calls, batches, &failed);
		fastest(counted[n].call, calls, 3, &failed); /* to warm up */
		double took = fastest(counted[n].call, calls, batches, &failed) - loop;
		if (failed)
			return fprintf(stderr, "%s failed\n", counted[n].name), 1;
		printf("%s\t%.0f\n", counted[n].name, took);
	}
	kill(child, SIGKILL);
	return 0;
}
