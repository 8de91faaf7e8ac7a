/* What the programs that are timed have in common. */
#ifndef SESSION_H
#define SESSION_H

#include <linux/if_alg.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { DIGEST = 64 }; /* bytes that hmac(sha512) gives */

static inline long nanoseconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static inline int ascending(const void *a, const void *b)
{
	long x = *(const long *)a, y = *(const long *)b;
	return (x > y) - (x < y);
}

/* The operation socket of a new session, or -1. */
static inline int begin(int *parent)
{
	static const struct sockaddr_alg address = {
		.salg_family = AF_ALG, .salg_type = "hash", .salg_name = "hmac(sha512)",
	};
	*parent = socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (*parent < 0)
		return perror("socket"), -1;
	if (bind(*parent, (const struct sockaddr *)&address, sizeof address))
		return perror("bind"), -1;
	if (setsockopt(*parent, SOL_ALG, ALG_SET_KEY, "key", 3))
		return perror("setsockopt"), -1;
	int operation = accept4(*parent, NULL, NULL, SOCK_CLOEXEC);
	if (operation < 0)
		perror("accept");
	return operation;
}

/* A whole session: socket, bind, key, accept, close. */
static inline int session(void)
{
	int parent, operation = begin(&parent);
	if (operation < 0)
		return -1;
	close(operation);
	close(parent);
	return 0;
}

#endif
