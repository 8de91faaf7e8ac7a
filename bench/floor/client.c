/* Times whole sessions of AF_ALG.
 *
 * Use: client SESSIONS. Prints the median, the mean and the 99th percentile of a
 * session in nanoseconds. Exit status 1 if a session failed. */
#define _GNU_SOURCE
#include "session.h"
#include <stdlib.h>

int main(int argc, char **argv)
{
	int n = argc == 2 ? atoi(argv[1]) : 0;
	if (n < 100)
		return fprintf(stderr, "usage: client SESSIONS (100 at least)\n"), 2;
	long *took = calloc(n, sizeof *took);
	if (!took)
		return perror("calloc"), 2;
	long sum = 0;
	for (int i = -n / 10; i < n; i++) { /* a tenth more, to warm up */
		long start = nanoseconds();
		if (session())
			return 1;
		if (i >= 0)
			sum += took[i] = nanoseconds() - start;
	}
	qsort(took, n, sizeof *took, ascending);
	printf("%ld %ld %ld\n", took[n / 2], sum / n, took[n - n / 100 - 1]);
	return 0;
}
