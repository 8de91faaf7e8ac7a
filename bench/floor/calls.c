/* Times calls that have nothing to do with AF_ALG: those that no filter traps,
 * and those that look like ours and are not.
 *
 * Use: calls BATCHES. Prints a line for each call: a name, a tab, the median of
 * the batches in nanoseconds for one call.
 *      calls count. Makes the calls that are not trapped, and asks for a socket
 * of every other family, and prints how many calls that was. */
#define _GNU_SOURCE
#include "session.h"
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/un.h>

enum { BATCH = 64, FAMILIES = 48, NO_TYPE = 15 };

static int first[BATCH], second[BATCH]; /* descriptors; -1 if there is none */
static int listener;
static union {
	struct sockaddr any;
	struct sockaddr_un local;
	struct sockaddr_in inet;
	struct sockaddr_in6 inet6;
} names[BATCH];

static void nothing(void) {}

static void sockets(int family)
{
	for (int i = 0; i < BATCH; i++) {
		memset(&names[i], 0, sizeof names[i]);
		names[i].any.sa_family = family;
		first[i] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0);
	}
}

static void local(void)
{
	static unsigned n;
	sockets(AF_UNIX);
	for (int i = 0; i < BATCH; i++) /* in the abstract namespace */
		snprintf(names[i].local.sun_path + 1, sizeof names[i].local.sun_path - 1, "bench %d %u", getpid(), n++);
}

static void inet(void) { sockets(AF_INET); }
static void inet6(void) { sockets(AF_INET6); }

static void connections(void)
{
	struct sockaddr_un own;
	socklen_t size = sizeof own;
	getsockname(listener, (struct sockaddr *)&own, &size);
	sockets(AF_UNIX);
	for (int i = 0; i < BATCH; i++)
		if (connect(first[i], (struct sockaddr *)&own, size))
			perror("connect");
}

static int call_getppid(int i) { return (void)i, syscall(SYS_getppid) < 0; }
static int bind_to(int i, socklen_t size) { return bind(first[i], &names[i].any, size); }
static int bind16(int i) { return bind_to(i, sizeof(struct sockaddr_in)); }
static int bind28(int i) { return bind_to(i, sizeof(struct sockaddr_in6)); }
static int bind88(int i) { return bind_to(i, sizeof(struct sockaddr_alg)); }
static int bind110(int i) { return bind_to(i, sizeof(struct sockaddr_un)); }
static int socket_of(int i, int family) { return (second[i] = socket(family, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0; }
static int socket_unix(int i) { return socket_of(i, AF_UNIX); }
static int socket_inet(int i) { return socket_of(i, AF_INET); }
static int accept_none(int i) { return (second[i] = accept4(listener, NULL, NULL, SOCK_CLOEXEC)) < 0; }

static int accept_named(int i)
{
	struct sockaddr_un peer;
	socklen_t size = sizeof peer;
	return (second[i] = accept4(listener, (struct sockaddr *)&peer, &size, SOCK_CLOEXEC)) < 0;
}

static const struct {
	const char *name;
	int trapped;
	void (*prepare)(void);
	int (*call)(int); /* not 0 if it failed */
} timed[] = {
	{ "getppid", 0, nothing, call_getppid },
	{ "socket(AF_UNIX)", 0, nothing, socket_unix },
	{ "socket(AF_INET)", 0, nothing, socket_inet },
	{ "bind of 16 bytes, AF_INET", 0, inet, bind16 },
	{ "bind of 28 bytes, AF_INET6", 0, inet6, bind28 },
	{ "bind of 110 bytes, AF_UNIX", 0, local, bind110 },
	{ "accept with an address, AF_UNIX", 0, connections, accept_named },
	{ "bind of 88 bytes, AF_UNIX", 1, local, bind88 },
	{ "accept without an address, AF_UNIX", 1, connections, accept_none },
};

enum { TIMED = sizeof timed / sizeof *timed };

/* Nanoseconds for one call. */
static double batch(int n)
{
	int failed = 0;
	memset(first, -1, sizeof first);
	memset(second, -1, sizeof second);
	timed[n].prepare();
	long start = nanoseconds();
	for (int i = 0; i < BATCH; i++)
		failed |= timed[n].call(i);
	double took = (double)(nanoseconds() - start) / BATCH;
	for (int i = 0; i < BATCH; i++) {
		close(first[i]);
		close(second[i]);
	}
	if (failed) {
		fprintf(stderr, "%s failed\n", timed[n].name);
		exit(1);
	}
	return took;
}

static int larger(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static int count(void)
{
	int made = 0;
	for (int n = 0; n < TIMED; n++)
		if (!timed[n].trapped) {
			batch(n);
			made += BATCH;
		}
	for (int family = 0; family < FAMILIES; family++)
		if (family != AF_ALG)
			made += socket(family, NO_TYPE, 0) < 0; /* fails before a module is loaded */
	return printf("%d\n", made), 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_un autobind = { .sun_family = AF_UNIX };
	int batches = argc == 2 ? atoi(argv[1]) : 0;
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0 || bind(listener, (struct sockaddr *)&autobind, sizeof autobind.sun_family) || listen(listener, BATCH))
		return perror("listen"), 2;
	if (argc == 2 && !strcmp(argv[1], "count"))
		return count();
	if (batches < 10)
		return fprintf(stderr, "usage: calls BATCHES (10 at least), or calls count\n"), 2;
	double *took = calloc(batches, sizeof *took);
	if (!took)
		return perror("calloc"), 2;
	for (int n = 0; n < TIMED; n++) {
		batch(n); /* to warm up */
		for (int i = 0; i < batches; i++)
			took[i] = batch(n);
		qsort(took, batches, sizeof *took, larger);
		printf("%s\t%.0f\n", timed[n].name, took[batches / 2]);
	}
	return 0;
}
