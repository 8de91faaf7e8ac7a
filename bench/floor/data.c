/* Times hashing on an operation socket: 1 MiB in writes of 16 KiB, and 64
 * bytes.
 *
 * Use: data ROUNDS. Prints the medians of both in nanoseconds. */
#define _GNU_SOURCE
#include "session.h"
#include <stdlib.h>

enum { WRITE = 16 << 10, LARGE = 1 << 20, SMALL = 64, MANY = 100 };

static void hash(int operation, size_t size)
{
	static char data[WRITE], digest[DIGEST];
	while (size > 0) {
		size_t n = size < WRITE ? size : WRITE;
		size -= n;
		if (send(operation, data, n, size > 0 ? MSG_MORE : 0) != (ssize_t)n) {
			perror("send");
			exit(1);
		}
	}
	if (recv(operation, digest, sizeof digest, 0) != sizeof digest) {
		perror("recv");
		exit(1);
	}
}

/* Nanoseconds for one hash, timed so many at a time. */
static long median(int operation, size_t size, int rounds, int at_a_time)
{
	long *took = calloc(rounds, sizeof *took);
	if (!took) {
		perror("calloc");
		exit(2);
	}
	hash(operation, size); /* to warm up */
	for (int i = 0; i < rounds; i++) {
		long start = nanoseconds();
		for (int n = 0; n < at_a_time; n++)
			hash(operation, size);
		took[i] = (nanoseconds() - start) / at_a_time;
	}
	qsort(took, rounds, sizeof *took, ascending);
	long middle = took[rounds / 2];
	free(took);
	return middle;
}

int main(int argc, char **argv)
{
	int n = argc == 2 ? atoi(argv[1]) : 0, parent;
	if (n < 1)
		return fprintf(stderr, "usage: data ROUNDS\n"), 2;
	int operation = begin(&parent);
	if (operation < 0)
		return 1;
	printf("%ld %ld\n", median(operation, LARGE, n, 1), median(operation, SMALL, n, MANY));
	return 0;
}
