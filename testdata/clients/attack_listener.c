/* A listener of one's own in the place of one that has gone. Filters are asked
 * from the newest on, and of equal actions the first one's counts: whoever may
 * load a filter with a listener answers for all that older filters left to
 * theirs. The supervisor here lets every call go on; then a socket is made and
 * bound, and nothing else. */
#include "attack.h"
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/un.h>

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

/* Hands socket and bind to the listener, by their numbers on any ABI of this
 * program: all calls but those two are let through. */
static struct sock_filter notify_insns[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 1, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_bind, 0, 1),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};

static long load_plain(unsigned long flags)
{
	struct sock_fprog prog = { sizeof(notify_insns) / sizeof(*notify_insns), notify_insns };
	return checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &prog));
}

#ifdef __x86_64__
/* The same call by int $0x80, with upper halves in the registers, and by x32. */
static long load_compat(unsigned long flags)
{
	struct { unsigned short len; unsigned int insns; } *prog;
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	memcpy(low + 64, notify_insns, sizeof(notify_insns));
	prog = (void *)low;
	prog->len = sizeof(notify_insns) / sizeof(*notify_insns);
	prog->insns = (unsigned int)(unsigned long)(low + 64);
	long ret;
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(354L), "b"(1L | 5L << 32), "c"(flags), "d"(low) : "r8", "r9", "r10", "r11", "memory");
	return (int)ret;
}

static long load_x32(unsigned long flags)
{
	struct { unsigned short len; unsigned int insns; } *prog;
	char *low = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT, -1, 0);
	memcpy(low + 64, notify_insns, sizeof(notify_insns));
	prog = (void *)low;
	prog->len = sizeof(notify_insns) / sizeof(*notify_insns);
	prog->insns = (unsigned int)(unsigned long)(low + 64);
	return checked(syscall(0x40000000 + SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, low));
}
#endif

static int listener = -1, ready[2];

static void *supervise(void *arg)
{
	struct seccomp_notif_sizes sizes = { 0 };
	char c;
	(void)arg;
	if (read(ready[0], &c, 1) != 1 || syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
		return NULL;
	struct seccomp_notif *n = malloc(sizes.seccomp_notif);
	for (;;) {
		memset(n, 0, sizes.seccomp_notif);
		if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, n) < 0) {
			if (errno == EINTR)
				continue;
			return NULL;
		}
		struct seccomp_notif_resp r = { .id = n->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
		ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &r);
	}
}

enum { LOADED = 1, PARENT = 2, BOUND = 4 };

/* One try, in a process of its own: what was reached of the three. */
static int attempt(long (*load)(unsigned long), unsigned long flags, long *error)
{
	int result[2], got[2] = { 0, 0 };
	if (pipe(result) < 0)
		die("pipe");
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		pthread_t thread;
		alarm(60);
		if (pipe(ready) < 0 || pthread_create(&thread, NULL, supervise, NULL))
			_exit(9);
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		long fd = load(flags);
		got[1] = (int)fd;
		if (fd >= 0) {
			got[0] |= LOADED;
			listener = (int)fd;
			if (write(ready[1], "r", 1) != 1)
				_exit(9);
		}
		int domain = 0;
		socklen_t size = sizeof(domain);
		long s = alg_socket();
		if (s >= 0 && getsockopt((int)s, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_ALG) {
			got[0] |= PARENT;
			if (alg_bind((int)s, denied) >= 0)
				got[0] |= BOUND;
		}
		if (write(result[1], got, sizeof(got)) != sizeof(got))
			_exit(9);
		_exit(0);
	}
	close(result[1]);
	if (read(result[0], got, sizeof(got)) != sizeof(got))
		got[1] = -ESRCH; /* it was killed */
	close(result[0]);
	waitpid(pid, NULL, 0);
	*error = got[1];
	return got[0];
}

/* Every flag that serves a listener, with and without upper bits, by each ABI. */
static void cmd_listener(FILE *out)
{
	static const unsigned long flags[] = { 8, 8 | 1 | 16, 8 | 2, 8 | 4, 8 | 16, 8 | 32, 8 | 2 | 4 | 32 };
	static long (*const loads[])(unsigned long) = {
		load_plain,
#ifdef __x86_64__
		load_compat, load_x32,
#endif
	};
	long tries = 0, loaded = 0, parents = 0, bound = 0, busy = 0;
	for (size_t l = 0; l < sizeof(loads) / sizeof(*loads); l++)
		for (size_t i = 0; i < 2 * sizeof(flags) / sizeof(*flags); i++) {
			unsigned long high = i & 1 ? 0x7ul << 16 << 16 : 0;
			long error;
			int got = attempt(loads[l], flags[i / 2] | high, &error);
			tries++;
			loaded += !!(got & LOADED);
			parents += !!(got & PARENT);
			bound += !!(got & BOUND);
			busy += error == -EBUSY;
		}
	fprintf(stderr, "tries %ld, refused with EBUSY %ld, listeners %ld, wrong (AF_ALG parents) %ld, bound to what nobody allows %ld\n",
		tries, busy, loaded, parents, bound);
	fprintf(out, "refused with EBUSY %s\nlisteners %s\nAF_ALG parents %s\nbound %s\n", busy == tries ? "all" : busy ? "some" : "none",
		loaded ? "some" : "none", parents ? "some" : "none", bound ? "some" : "none");
	fprintf(out, "socket %s\n", name_of(alg_socket()));
	fflush(out);
}

static void report(const char *path)
{
	char temporary[200];
	snprintf(temporary, sizeof(temporary), "%s.%d", path, getpid());
	FILE *out = fopen(temporary, "w");
	if (!out)
		die(temporary);
	cmd_listener(out);
	fclose(out);
	rename(temporary, path);
}

/* A daemon, twice forked and of another session, that outlives the command,
 * kills the broker, with the guard if it is to, and then tries. */
static void cmd_daemon(const char *who, const char *path)
{
	int broker = getppid(), guard = parent_of(broker), front = parent_of(guard);
	if (fork() > 0)
		_exit(0);
	setsid();
	if (fork() > 0)
		_exit(0);
	if (strcmp(who, "all"))
		while (getppid() != broker || kill(front, 0) == 0)
			usleep(1000); /* until the command has ended, and the front with it */
	if (!strcmp(who, "all"))
		kill(front, SIGSTOP); /* at once: none sees the others go */
	if (strcmp(who, "broker"))
		kill(guard, SIGSTOP);
	kill(broker, SIGKILL);
	if (strcmp(who, "broker"))
		kill(guard, SIGKILL);
	if (!strcmp(who, "all"))
		kill(front, SIGKILL);
	while (kill(broker, 0) == 0 || errno != ESRCH)
		usleep(1000);
	report(path);
}

/* Runs a command under a filter that notifies, and that nobody listens to: ours
 * without what it refuses. */
static void cmd_orphaned(char **argv)
{
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	long fd = load_plain(SECCOMP_FILTER_FLAG_NEW_LISTENER);
	if (fd < 0)
		die("load");
	close((int)fd);
	execvp(argv[0], argv);
	die(argv[0]);
}

/* An agent that takes what it is sent, and forgets it. */
static void cmd_forgetful(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	unlink(path);
	int l = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(l, 8) < 0)
		die(path);
	for (;;) {
		char buf[1 << 16];
		int c = accept(l, NULL, NULL);
		while (recv(c, buf, sizeof(buf), 0) > 0)
			;
		close(c);
	}
}

int attack_listener(int argc, char **argv)
{
	if (argc == 2 && !strcmp(argv[1], "listener"))
		cmd_listener(stdout);
	else if (argc == 4 && !strcmp(argv[1], "daemon"))
		cmd_daemon(argv[2], argv[3]);
	else if (argc > 2 && !strcmp(argv[1], "orphaned"))
		cmd_orphaned(argv + 2);
	else if (argc == 3 && !strcmp(argv[1], "forgetful"))
		cmd_forgetful(argv[2]);
	else
		return attack_more(argc, argv);
	return 0;
}
