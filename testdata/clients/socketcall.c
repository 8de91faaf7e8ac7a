/* Asks for a socket of one family by both 32-bit ways and prints what each
 * gives: "socket EAFNOSUPPORT". Family 38 is AF_ALG.
 *
 *   gcc -m32 -static -o socketcall32 socketcall.c    a 32-bit program
 *   gcc -static -o socketcall64 socketcall.c         the same calls by int $0x80
 *
 * Use: socketcall FAMILY [TYPE]. Exit status 0 if a way gave a socket, 1 if
 * none did, 2 for wrong use. Type 15 is no type: EINVAL then means that the
 * filters let the family pass, and no module is loaded. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { NR_SOCKETCALL = 102, NR_SOCKET = 359, SYS_SOCKET_CALL = 1, SEQPACKET = 5 };

static long int80(long nr, long a, long b, long c)
{
	long ret;
#ifdef __x86_64__
	/* Older kernels zero r8 to r11 on this way in. */
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c)
			 : "r8", "r9", "r10", "r11", "memory");
#else
	__asm__ volatile("int $0x80" : "=a"(ret) : "a"(nr), "b"(a), "c"(b), "d"(c) : "memory");
#endif
	return (int)ret;
}

static int report(const char *way, long ret)
{
	if (ret >= 0) {
		printf("%s ok\n", way);
		close((int)ret);
		return 1;
	}
	const char *name = strerrorname_np((int)-ret);
	printf("%s %s\n", way, name ? name : "unknown errno");
	return 0;
}

int main(int argc, char **argv)
{
	if (argc < 2 || argc > 3) {
		fprintf(stderr, "usage: socketcall FAMILY [TYPE]\n");
		return 2;
	}
	int family = atoi(argv[1]);
	int type = argc > 2 ? atoi(argv[2]) : SEQPACKET;
	/* What socketcall points to must lie below 4 GiB in either build. */
	int flags = MAP_PRIVATE | MAP_ANONYMOUS;
#ifdef __x86_64__
	flags |= MAP_32BIT;
#endif
	int *args = mmap(NULL, 4096, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (args == MAP_FAILED) {
		perror("mmap");
		return 2;
	}
	args[0] = family;
	args[1] = type;
	args[2] = 0;
	setvbuf(stdout, NULL, _IONBF, 0); /* the next call may kill */
	int got = report("socket", int80(NR_SOCKET, family, type, 0));
	got += report("socketcall", int80(NR_SOCKETCALL, SYS_SOCKET_CALL, (long)args, 0));
	return got ? 0 : 1;
}
