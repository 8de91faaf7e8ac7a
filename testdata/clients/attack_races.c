/* The attacks that take time: races, kills, floods. Figures go to standard error. */
#include "attack.h"
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <time.h>

struct shared *shared;

long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

void share(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED, SHARED, 0);
	if (shared == MAP_FAILED)
		shared = NULL;
}

static void wait_for(volatile int *what, int value)
{
	while (*what < value)
		usleep(1000);
}

/* The numbers of a race, and what must not depend on them. */
static struct { long tries, operations, wrong, denied_bound; } count;

static void counted(void)
{
	fprintf(stderr, "tries %ld operations %ld wrong %ld\n", count.tries, count.operations, count.wrong);
	printf("operations %s\n", count.operations > 0 ? "some" : "none");
	printf("of another algorithm %s\n", count.wrong > 0 ? "some" : "none");
	printf("denied and bound %s\n", count.denied_bound > 0 ? "some" : "none");
}

static void take(int fd)
{
	count.tries++;
	alg_key(fd);
	long op = alg_accept(fd);
	if (op < 0)
		return;
	count.operations++;
	long n = digest_length((int)op);
	if (n > 0 && n != 64)
		count.wrong++;
	close((int)op);
}

static volatile int over;
static int ends[3], target;

static void *move_descriptor(void *arg)
{
	(void)arg;
	for (unsigned i = 0; !over; i++) {
		dup2(ends[i % 3], target);
		sched_yield();
	}
	return NULL;
}

static int sessions_bound(void)
{
	long fd = alg_socket();
	if (fd < 0 || alg_bind((int)fd, allowed) < 0) {
		printf("not admitted\n");
		exit(0);
	}
	return (int)fd;
}

/* bind works on a descriptor that another thread replaces all the time. */
static void cmd_dup2(long n)
{
	pthread_t thread;
	ends[0] = sessions_bound();
	ends[1] = sessions_bound();
	ends[2] = socket(AF_UNIX, SOCK_SEQPACKET, 0);
	target = dup(ends[0]);
	pthread_create(&thread, NULL, move_descriptor, NULL);
	for (long i = 0; i < n; i++) {
		const char *name = i & 1 ? denied : allowed;
		if (alg_bind(target, name) == 0 && i & 1)
			count.denied_bound++;
		take(target);
	}
	over = 1;
	pthread_join(thread, NULL);
	counted();
}

static struct sockaddr_alg moving;

static void *move_address(void *arg)
{
	struct sockaddr_alg a = address("hash", allowed), b = address("hash", denied);
	(void)arg;
	for (unsigned i = 0; !over; i++) {
		memcpy(moving.salg_name, i & 1 ? a.salg_name : b.salg_name, sizeof(a.salg_name));
		sched_yield();
	}
	return NULL;
}

/* bind reads an address that another thread rewrites all the time. */
static void cmd_rewrite(long n)
{
	pthread_t thread;
	moving = address("hash", allowed);
	int fd = sessions_bound();
	pthread_create(&thread, NULL, move_address, NULL);
	for (long i = 0; i < n; i++)
		if (bind(fd, (struct sockaddr *)&moving, sizeof(moving)) == 0)
			take(fd);
		else
			count.tries++;
	over = 1;
	pthread_join(thread, NULL);
	counted();
}

static int one_session(int die_at)
{
	int fd, op, step = 0;
#define POINT() do { if (++step == die_at) raise(SIGKILL); } while (0)
	POINT();
	if ((fd = (int)alg_socket()) < 0)
		return 0;
	POINT();
	int ok = alg_bind(fd, allowed) == 0;
	POINT();
	ok = ok && alg_key(fd) == 0;
	POINT();
	op = (int)alg_accept(fd);
	POINT();
	ok = ok && op >= 0 && digest_length(op) == 64;
	if (op >= 0)
		close(op);
	POINT();
	close(fd);
	return ok;
}

static long failed, killed;

static void work_sessions(long n)
{
	for (long i = 0; i < n; i++)
		failed += !one_session(0);
}

/* Processes killed at fixed points, and at any. */
static void work_kills(long n)
{
	for (long i = 0; i < n; i++) {
		int at = (int)(i % 7), status;
		pid_t pid = fork();
		if (pid == 0)
			for (;;)
				one_session(at);
		if (at == 0) {
			usleep((useconds_t)(rand() % 3000));
			kill(pid, SIGKILL);
		}
		waitpid(pid, &status, 0);
		killed += WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
	}
}

static void work_circles(long n)
{
	for (long i = 0; i < n; i++) {
		circle();
		if (i % 100 == 99 || i == n - 1) { /* the kernel collects when another socket is closed */
			int pair[2];
			usleep(50000);
			if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
				die("socketpair");
			close(pair[0]);
			close(pair[1]);
			usleep(50000);
		}
	}
}

void cmd_phases(void (*work)(long), long n)
{
	share();
	work(n / 10 + 1);
	if (shared) {
		shared->phase = 1;
		wait_for(&shared->go, 1);
	}
	long long start = now();
	work(n);
	fprintf(stderr, "%ld in %lld ms\n", n, (now() - start) / 1000000);
	if (shared) {
		shared->phase = 2;
		wait_for(&shared->go, 2);
	}
	printf("failed %ld\n", failed);
	if (killed)
		printf("killed %ld\n", killed - (n / 10 + 1));
}

/* What "watch" kills the broker of: two processes, one of them a daemon, that
 * go through the steps and do not give up. */
static void endless(int main_one)
{
	alarm(PATIENCE);
	while (!shared->go) {
		long r[4] = { 0 }, fd = -1;
		for (int step = 0; step < 4; step++) {
			if (main_one)
				shared->step = step + 1;
			long long start = now();
			switch (step) {
			case 0: r[0] = fd = alg_socket(); break;
			case 1: r[1] = alg_bind((int)fd, allowed); break;
			case 2: r[2] = alg_key((int)fd); break;
			default: r[3] = alg_accept((int)fd);
			}
			if (r[step] >= 0 && start > shared->last)
				shared->last = start;
			shared->calls++;
		}
		if (r[3] >= 0)
			close((int)r[3]);
		if (fd >= 0)
			close((int)fd);
		if (main_one)
			shared->step = 0;
		usleep(r[0] < 0 ? 1000 : 50);
	}
}

static void cmd_endless(void)
{
	share();
	pid_t pid = fork();
	if (pid == 0) {
		setsid();
		if (fork() == 0)
			endless(0);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	endless(1);
}

/* N threads whose calls all wait at once: "watch" has stopped the broker. */
static long answers[200];

static void *blocked(void *arg)
{
	(void)arg;
	__atomic_fetch_add(&shared->entered, 1, __ATOMIC_SEQ_CST);
	long r = alg_socket();
	__atomic_fetch_add(&answers[r < 0 ? -r : 0], 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static void cmd_block(long n)
{
	pthread_t *threads = calloc((size_t)n, sizeof(*threads));
	pthread_attr_t attr;
	share();
	shared->phase = 1;
	wait_for(&shared->go, 1);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, 16 << 10);
	for (long i = 0; i < n; i++)
		if (pthread_create(&threads[i], &attr, blocked, NULL)) {
			fprintf(stderr, "only %ld threads\n", i);
			n = i;
		}
	while (shared->entered < n)
		usleep(1000);
	shared->phase = 2;
	for (long i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	shared->phase = 3;
	wait_for(&shared->go, 2);
	for (int e = 0; e < 200; e++)
		if (answers[e])
			printf("%s %ld\n", name_of(-e), answers[e]);
}

static int by_value(const void *a, const void *b)
{
	long long x = *(const long long *)a, y = *(const long long *)b;
	return x < y ? -1 : x > y;
}

static int ordinary(const char *what, int n)
{
	long long took[1000];
	int served = 0;
	for (int i = 0; i < n; i++) {
		long long start = now();
		served += one_session(0);
		took[i] = now() - start;
	}
	qsort(took, (size_t)n, sizeof(*took), by_value);
	fprintf(stderr, "%s: %d sessions, median %lld us, p99 %lld us, most %lld us\n", what, n,
		took[n / 2] / 1000, took[n * 99 / 100] / 1000, took[n - 1] / 1000);
	return served == n;
}

/* Processes that do nothing but ask, beside one that works. */
static void cmd_flood(int n)
{
	printf("alone %s\n", ordinary("alone", 100) ? "served" : "failed");
	pid_t flooders[64];
	for (int i = 0; i < n; i++)
		if ((flooders[i] = fork()) == 0)
			for (;;) {
				int fd = (int)alg_socket();
				alg_bind(fd, i & 1 ? denied : allowed);
				close(fd);
			}
	printf("beside the flood %s\n", ordinary("beside the flood", 100) ? "served" : "failed");
	for (int i = 0; i < n; i++)
		kill(flooders[i], SIGKILL);
}

static void *bind_stuck(void *page)
{
	long fd = alg_socket();
	__atomic_fetch_add(&count.tries, 1, __ATOMIC_SEQ_CST);
	bind((int)fd, page, sizeof(struct sockaddr_alg));
	__atomic_fetch_add(&count.operations, 1, __ATOMIC_SEQ_CST); /* never */
	return NULL;
}

/* N threads bind with addresses in pages that never come. */
static void stick(int n, int ready)
{
	int device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC); /* the call needs CAP_SYS_PTRACE */
	long uffd = device < 0 ? -1 : ioctl(device, _IO(0xAA, 0x00), O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	char *pages = mmap(NULL, (size_t)n * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct uffdio_register r = { { (unsigned long)pages, (size_t)n * 4096 }, UFFDIO_REGISTER_MODE_MISSING, 0 };
	if (uffd < 0 || ioctl((int)uffd, UFFDIO_API, &api) < 0 || ioctl((int)uffd, UFFDIO_REGISTER, &r) < 0)
		die("userfaultfd");
	for (int i = 0; i < n; i++) {
		pthread_t thread;
		if (pthread_create(&thread, NULL, bind_stuck, pages + 4096 * i))
			die("thread");
	}
	usleep((useconds_t)n * 400000); /* each takes a worker of the broker */
	if (write(ready, "r", 1) != 1)
		die("ready");
	for (;;) {
		sleep(1);
		if (count.operations)
			fprintf(stderr, "%ld came back\n", count.operations);
	}
}

static void cmd_stuck(int n)
{
	int ready[2];
	char c;
	if (pipe(ready) < 0)
		die("pipe");
	pid_t pid = fork();
	if (pid == 0)
		stick(n, ready[1]);
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1)
		die("stick");
	for (int i = 0; i < 2; i++) {
		int status;
		pid_t other = fork();
		if (other == 0) {
			/* A call that waits for an answer dies of it. Only with many
			 * stuck ones is that what is asked. */
			alarm(i == 0 && n > 4 ? 10 : PATIENCE);
			_exit(ordinary(i ? "after its end" : "beside it", 50) ? 0 : 1);
		}
		waitpid(other, &status, 0);
		printf("%s %s\n", i ? "after its end" : "beside it",
		       WIFSIGNALED(status) ? "not served" : WEXITSTATUS(status) ? "failed" : "served");
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
	}
}

int attack_more(int argc, char **argv)
{
	const char *what = argc > 1 ? argv[1] : "";
	long n = argc > 2 ? atol(argv[2]) : 0;
	if (!strcmp(what, "dup2"))
		cmd_dup2(n);
	else if (!strcmp(what, "rewrite"))
		cmd_rewrite(n);
	else if (!strcmp(what, "sessions"))
		cmd_phases(work_sessions, n);
	else if (!strcmp(what, "kills"))
		cmd_phases(work_kills, n);
	else if (!strcmp(what, "circles"))
		cmd_phases(work_circles, n);
	else if (!strcmp(what, "endless"))
		cmd_endless();
	else if (!strcmp(what, "block"))
		cmd_block(n);
	else if (!strcmp(what, "flood"))
		cmd_flood((int)n);
	else if (!strcmp(what, "stuck"))
		cmd_stuck((int)n);
	else if (!strcmp(what, "watch") && argc > 4)
		watch(argv[2], argv[3], argv + 4);
	else
		return attack_tree(argc, argv);
	return 0;
}
