/* Workloads that make sessions of AF_ALG all at once.
 *
 * Use: workload DIR SECONDS                 one, under whatever it is started
 *      workload DIR SECONDS FILTER COUNT    so many, each a process under a
 *                                           filter and a listener of its own
 *
 * Each begins when descriptor 3 reaches its end, and writes to DIR/PID how long
 * its sessions took, a line in nanoseconds each. With 0 SECONDS each makes ten,
 * and stays until descriptor 0 reaches its end. FILTER is a file of struct
 * sock_filter; the listeners are sent over descriptor 4. */
#define _GNU_SOURCE
#include "session.h"
#include "confine.h"
#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { STAY = 0, GO = 3, FEW = 10, MOST = 1 << 20 };

#define WARM_UP 300000000L

static void until_end(int fd)
{
	char byte;
	while (read(fd, &byte, 1) > 0)
		;
}

static void write_down(const char *dir, const long *took, int n)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%d", dir, getpid());
	FILE *f = fopen(path, "w");
	if (!f)
		err(2, "%s", path);
	for (int i = 0; i < n; i++)
		fprintf(f, "%ld\n", took[i]);
	if (fclose(f))
		err(2, "%s", path);
}

static int work(const char *dir, long duration)
{
	static long took[MOST];
	int n = 0;
	until_end(GO);
	long begun = nanoseconds();
	for (long start; n < MOST; ) {
		start = nanoseconds();
		if (duration ? start - begun > duration + WARM_UP : n == FEW)
			break;
		if (session())
			return 1;
		if (!duration || start - begun > WARM_UP)
			took[n++] = nanoseconds() - start;
	}
	write_down(dir, took, n);
	if (!duration)
		until_end(STAY);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc != 3 && argc != 5)
		return fprintf(stderr, "usage: workload DIR SECONDS [FILTER COUNT]\n"), 2;
	long duration = atol(argv[2]) * 1000000000L;
	if (argc == 3)
		return work(argv[1], duration);
	struct sock_fprog filter = read_filter(argv[3]);
	int count = atoi(argv[4]), status, bad = 0;
	disarm();
	for (int i = 0; i < count; i++) {
		pid_t child = fork();
		if (child < 0)
			err(2, "fork");
		if (!child) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			confine(&filter);
			return work(argv[1], duration);
		}
	}
	close(GO);
	close(BROKER);
	while (wait(&status) > 0)
		bad |= status;
	return bad != 0;
}
