/* Attacks on the identity of a listed executable: by those who steer it, by
 * races, and by root against the tables themselves. */
#include "attack.h"
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/uio.h>

/* ---- Reaching into a running process ---- */

static void cmd_hold(void)
{
	int fd = must_parent();
	int op = (int)alg_accept(fd);
	printf("%d %d %p\n", getpid(), op, (void *)&shared);
	fflush(stdout);
	pause();
}

static void cmd_reach(int pid, int fd, unsigned long where)
{
	char path[40], byte[8] = { 0 };
	struct iovec from = { byte, sizeof(byte) }, to = { (void *)where, sizeof(byte) };
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	printf("mem %s\n", name_of(checked(open(path, O_RDWR))));
	printf("process_vm_writev %s\n", name_of(checked(process_vm_writev(pid, &from, 1, &to, 1, 0))));
	int process = (int)syscall(434 /* pidfd_open */, pid, 0);
	long taken = checked(syscall(438 /* pidfd_getfd */, process, fd, 0));
	printf("pidfd_getfd %s\n", name_of(taken));
	if (taken >= 0)
		printf("taken %ld\n", digest_length((int)taken));
	long r = checked(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
	printf("ptrace %s\n", name_of(r));
}

/* Starts a program that it traces. */
static void cmd_traceme(const char *program)
{
	int status = 0;
	fflush(stdout);
	pid_t pid = fork();
	if (pid == 0) {
		ptrace(PTRACE_TRACEME, 0, NULL, NULL);
		execl(program, program, "try", NULL);
		die(program);
	}
	while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
		ptrace(PTRACE_CONT, pid, NULL, WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status));
}

/* ---- A supervisor that answers openat ---- */

static void install_listener(volatile int *number)
{
	static struct sock_filter insns[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { sizeof(insns) / sizeof(*insns), insns };
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	*number = (int)checked(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &prog));
}

static const char *victim;
static volatile int listener_fd;

static int injected_child(void *unused)
{
	(void)unused;
	install_listener(&listener_fd);
	execl(victim, victim, "try", NULL);
	_exit(9);
}

/* The supervisor gives the loader another file for the first library that it
 * asks for, after its cache. What it brings in opens a directory in its own way:
 * then the supervisor goes, if it is to. It need not read any memory. */
static void cmd_inject(const char *program, const char *library, int goes)
{
	static char stack[65536] __attribute__((aligned(16)));
	struct seccomp_notif_sizes sizes;
	int file = open(library, O_RDONLY), opened = 0;
	victim = program;
	fflush(stdout);
	/* Descriptors are shared until the program starts. */
	pid_t pid = clone(injected_child, stack + sizeof(stack), CLONE_VM | CLONE_FILES | SIGCHLD, NULL);
	if (file < 0 || pid < 0 || syscall(SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, &sizes) < 0)
		die(library);
	while (!listener_fd)
		usleep(1000);
	if (listener_fd < 0) {
		printf("listener %s\n", name_of(listener_fd));
		return;
	}
	struct seccomp_notif *n = malloc(sizes.seccomp_notif);
	struct pollfd asked = { .fd = listener_fd, .events = POLLIN };
	for (;;) { /* until nobody is under the filter: before Linux 6.11 one that nobody waited for is */
		int ready = poll(&asked, 1, 100);
		if (ready < 0 || asked.revents & POLLHUP)
			break;
		if (ready == 0) {
			if (waitpid(pid, NULL, WNOHANG) == pid)
				return;
			continue;
		}
		memset(n, 0, sizes.seccomp_notif);
		if (ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_RECV, n) < 0)
			break;
		struct seccomp_notif_resp r = { .id = n->id, .flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE };
		struct seccomp_notif_addfd a = { .id = n->id, .flags = SECCOMP_ADDFD_FLAG_SEND, .srcfd = (unsigned)file };
		if (++opened == 2) {
			ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_ADDFD, &a);
			continue;
		}
		if (goes && n->data.args[2] == (O_RDONLY | O_DIRECTORY | O_NOFOLLOW)) {
			close(listener_fd);
			break;
		}
		ioctl(listener_fd, SECCOMP_IOCTL_NOTIF_SEND, &r);
	}
	waitpid(pid, NULL, 0);
}

/* ---- The executable of a process, exchanged ---- */

#ifdef __x86_64__
static struct prctl_mm_map map;

static int exchanger(void *unused)
{
	(void)unused;
	return prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0) < 0 ? errno : 0;
}

/* What is mapped of the executable, here the loader, keeps it from being
 * exchanged: copies in its place do not. */
static void forget_loader(void)
{
	char line[512], text[32768];
	int f = open("/proc/self/maps", O_RDONLY);
	ssize_t n = 0, got;
	while ((got = read(f, text + n, sizeof(text) - 1 - (size_t)n)) > 0)
		n += got;
	text[n] = 0;
	for (char *at = text; at && *at; at = strchr(at, '\n') ? strchr(at, '\n') + 1 : NULL) {
		unsigned long from, to;
		char rights[8];
		sscanf(at, "%lx-%lx %7s", &from, &to, rights);
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(at, "\n"), at);
		if (!strstr(line, "/ld-linux"))
			continue;
		char *copy = mmap(NULL, to - from, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memcpy(copy, (void *)from, to - from);
		mprotect(copy, to - from, (rights[0] == 'r' ? PROT_READ : 0) | (rights[1] == 'w' ? PROT_WRITE : 0) | (rights[2] == 'x' ? PROT_EXEC : 0));
		mremap(copy, to - from, to - from, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)from);
	}
}

/* A child in a user namespace of its own, which has the memory in common or
 * not, makes another file its executable. */
static void cmd_exchange(const char *program, int share)
{
	static char stack[65536] __attribute__((aligned(16)));
	unsigned long v[52] = { 0 };
	char text[2048] = "", path[256] = "";
	int f = open("/proc/self/stat", O_RDONLY), i = 3, status = 0;
	if (read(f, text, sizeof(text) - 1) < 0)
		die("stat");
	for (char *s = strrchr(text, ')') + 2; s && i < 52; s = strchr(s, ' ') ? strchr(s, ' ') + 1 : NULL)
		v[i++] = strtoul(s, NULL, 10);
	map = (struct prctl_mm_map){
		.start_code = v[26], .end_code = v[27], .start_data = v[45], .end_data = v[46], .start_brk = v[47], .brk = (unsigned long)sbrk(0),
		.start_stack = v[28], .arg_start = v[48], .arg_end = v[49], .env_start = v[50], .env_end = v[51],
		.exe_fd = (unsigned)open(program, O_RDONLY),
	};
	fflush(stdout);
	forget_loader();
	if (!share) {
		if (unshare(CLONE_NEWUSER) < 0)
			die("unshare");
		status = exchanger(NULL) << 8;
	} else {
		pid_t pid = clone(exchanger, stack + sizeof(stack), CLONE_VM | CLONE_VFORK | CLONE_NEWUSER | SIGCHLD, NULL);
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			die("clone");
	}
	printf("exchange %s\n", name_of(-WEXITSTATUS(status)));
	if (readlink("/proc/self/exe", path, sizeof(path) - 1) > 0)
		printf("executable %s\n", path);
	cmd_try();
	fflush(stdout);
	_exit(0);
}

/* ---- Races ---- */

struct tally { volatile long tries, passes, stop; };

static void attempt(struct tally *t)
{
	long fd = alg_socket();
	__atomic_fetch_add(&t->tries, 1, __ATOMIC_RELAXED);
	if (fd >= 0) {
		__atomic_fetch_add(&t->passes, 1, __ATOMIC_RELAXED);
		close((int)fd);
	}
}

static struct tally *new_tally(void)
{
	return mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

static void *attempts(void *t)
{
	while (!((struct tally *)t)->stop)
		attempt(t);
	return NULL;
}

static int attempts_child(void *t)
{
	attempts(t);
	_exit(0);
}

/* Threads, and a child in the same memory, make sockets while the process
 * starts a listed program. */
static void cmd_execs(const char *program, long n)
{
	struct tally *t = new_tally();
	long starts = 0;
	for (; t->tries < n; starts++) {
		pid_t pid = fork();
		if (pid == 0) {
			static char stack[65536] __attribute__((aligned(16)));
			pthread_t thread;
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			pthread_create(&thread, NULL, attempts, t);
			clone(attempts_child, stack + sizeof(stack), CLONE_VM | CLONE_FILES, t);
			usleep(2000);
			dup2(2, 1);
			execl(program, program, "guard", "ask", "hash", allowed, NULL);
			die(program);
		}
		long until = t->tries + 100;
		waitpid(pid, NULL, 0);
		for (int i = 0; i < 100 && t->tries < until; i++)
			usleep(1000);
		t->stop = 1;
		while (waitpid(-1, NULL, __WALL | WNOHANG) > 0)
			;
		usleep(2000);
		t->stop = 0;
	}
	t->stop = 1;
	fprintf(stderr, "starts %ld, tries %ld, passes %ld\n", starts, t->tries, t->passes);
	printf("raced %s, passed %s\n", t->tries ? "some" : "none", t->passes ? "some" : "none");
}

/* Loops make sockets, or bind what is denied, for so long or until there is a
 * file. */
static void cmd_loops(const char *kind, int loops, int seconds, const char *until)
{
	struct tally *t = new_tally();
	int binds = !strcmp(kind, "bind");
	for (int i = 0; i < loops; i++)
		if (fork() == 0) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (!t->stop) {
				if (!binds) {
					attempt(t);
					continue;
				}
				long fd = alg_socket();
				for (int k = 0; k < 20 && !t->stop; k++) {
					__atomic_fetch_add(&t->tries, 1, __ATOMIC_RELAXED);
					if (alg_bind((int)fd, denied) >= 0)
						__atomic_fetch_add(&t->passes, 1, __ATOMIC_RELAXED);
				}
				close((int)fd);
			}
			_exit(0);
		}
	for (int i = 0; i < seconds * 20 && (!*until || access(until, F_OK) != 0); i++)
		usleep(50000);
	t->stop = 1;
	while (wait(NULL) > 0)
		;
	fprintf(stderr, "%s: tries %ld, passes %ld\n", kind, t->tries, t->passes);
	printf("%s raced %s, passed %s\n", kind, t->tries ? "some" : "none", t->passes ? "some" : "none");
}

/* ---- The tables ---- */

static long bpf(int command, union bpf_attr *a) { return checked(syscall(SYS_bpf, command, a, sizeof(*a))); }

static int pinned(const char *path)
{
	union bpf_attr a = { .pathname = (unsigned long)path };
	long fd = bpf(BPF_OBJ_GET, &a);
	if (fd < 0)
		printf("%s %s\n", path, name_of(fd));
	return (int)fd;
}

static long inner_table(int slot)
{
	unsigned zero = 0, id = 0;
	union bpf_attr a = { .map_fd = (unsigned)slot, .key = (unsigned long)&zero, .value = (unsigned long)&id };
	long r = bpf(BPF_MAP_LOOKUP_ELEM, &a);
	if (r < 0)
		return r;
	union bpf_attr b = { .map_id = id };
	return bpf(BPF_MAP_GET_FD_BY_ID, &b);
}

static void cmd_tables(const char *slot_path, const char *link_path)
{
	static char key[256], value[512];
	int slot = pinned(slot_path), link = pinned(link_path);
	long inner = inner_table(slot);
	printf("table %s\n", name_of(inner));
	union bpf_attr change = { .map_fd = (unsigned)inner, .key = (unsigned long)key, .value = (unsigned long)value };
	printf("table, changed %s\n", name_of(bpf(BPF_MAP_UPDATE_ELEM, &change)));
	union bpf_attr detach = { .link_detach = { .link_fd = (unsigned)link } };
	printf("link, detached %s\n", name_of(bpf(BPF_LINK_DETACH, &detach)));
}

static void cmd_empty(const char *slot_path)
{
	unsigned zero = 0;
	union bpf_attr a = { .map_fd = (unsigned)pinned(slot_path), .key = (unsigned long)&zero };
	printf("slot, emptied %s\n", name_of(bpf(BPF_MAP_DELETE_ELEM, &a)));
}

/* What one who has some of root's capabilities finds. */
static void cmd_objects(void)
{
	union bpf_attr a = { .start_id = 0 }, b = { .start_id = 0 }, c = { .map_id = 1 };
	printf("maps %s\n", name_of(bpf(BPF_MAP_GET_NEXT_ID, &a)));
	printf("links %s\n", name_of(bpf(BPF_LINK_GET_NEXT_ID, &b)));
	printf("map by number %s\n", name_of(bpf(BPF_MAP_GET_FD_BY_ID, &c)));
}
#endif

int attack_steering(int argc, char **argv)
{
	const char *what = argc > 2 ? argv[2] : "";
	if (!strcmp(what, "hold"))
		cmd_hold();
	else if (argc == 6 && !strcmp(what, "reach"))
		cmd_reach(atoi(argv[3]), atoi(argv[4]), strtoul(argv[5], NULL, 16));
	else if (argc == 4 && !strcmp(what, "traceme"))
		cmd_traceme(argv[3]);
	else if (argc == 6 && !strcmp(what, "inject"))
		cmd_inject(argv[3], argv[4], !strcmp(argv[5], "goes"));
#ifdef __x86_64__
	else if (argc == 5 && !strcmp(what, "exchange"))
		cmd_exchange(argv[3], !strcmp(argv[4], "shared"));
	else if (argc == 5 && !strcmp(what, "execs"))
		cmd_execs(argv[3], atol(argv[4]));
	else if (argc == 7 && !strcmp(what, "loops"))
		cmd_loops(argv[3], atoi(argv[4]), atoi(argv[5]), argv[6]);
	else if (argc == 5 && !strcmp(what, "tables"))
		cmd_tables(argv[3], argv[4]);
	else if (argc == 4 && !strcmp(what, "empty"))
		cmd_empty(argv[3]);
	else if (!strcmp(what, "objects"))
		cmd_objects();
#endif
	else {
		fprintf(stderr, "usage: see attack_guard.c and attack_steering.c\n");
		return 2;
	}
	return 0;
}
