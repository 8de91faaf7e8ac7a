/* A workload that has the broker hash as much as it can.
 *
 * Use: neighbour FILTER PROGRAM COUNT    so many processes under one filter
 *                                        execute PROGRAM again and again, each
 *                                        time changed, until killed
 *      neighbour call                    asks for a socket, once: the PROGRAM is
 *                                        this one, with something behind it
 *
 * FILTER is a file of struct sock_filter; the listener is sent over descriptor
 * 4. "-" is none: what the same load does where nobody listens. */
#define _GNU_SOURCE
#include "confine.h"
#include <linux/if_alg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

static void execute(const char *program)
{
	for (int n = 0;; n++) {
		chmod(program, n % 2 ? 0500 : 0700); /* another change time */
		pid_t child = fork();
		if (!child) {
			execl(program, program, "call", (char *)NULL);
			_exit(127);
		}
		int status;
		if (child < 0 || waitpid(child, &status, 0) != child || status)
			errx(1, "%s: %x", program, status);
	}
}

int main(int argc, char **argv)
{
	if (argc == 2) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
		return 0;
	}
	if (argc != 4)
		return fprintf(stderr, "usage: neighbour FILTER PROGRAM COUNT\n"), 2;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (strcmp(argv[1], "-")) {
		struct sock_fprog filter = read_filter(argv[1]);
		disarm();
		confine(&filter);
	}
	for (int i = atoi(argv[3]); i > 1; i--)
		if (!fork()) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			execute(argv[2]);
		}
	execute(argv[2]);
}
