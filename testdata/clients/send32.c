/* Makes an IPv4 socket by socketcall, as old 32-bit C libraries do, and sends a
 * datagram to an address. It prints "sent", or the call that failed with its
 * errno. A filter on what a cgroup sends makes sendto fail with EPERM.
 *
 *   gcc -m32 -static -o send32 send32.c
 *
 * Use: send32 ADDRESS. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { SYS_SOCKET_CALL = 1 };

static int fail(const char *call)
{
	printf("%s %s\n", call, strerrorname_np(errno));
	return 1;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	if (argc != 2 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1) {
		fprintf(stderr, "usage: send32 ADDRESS\n");
		return 2;
	}
	unsigned long args[] = {AF_INET, SOCK_DGRAM, 0};
	int fd = syscall(SYS_socketcall, SYS_SOCKET_CALL, args);
	if (fd < 0)
		return fail("socketcall");
	if (sendto(fd, "", 1, 0, (struct sockaddr *)&to, sizeof(to)) < 0)
		return fail("sendto");
	puts("sent");
	return 0;
}
