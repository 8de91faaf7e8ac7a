// Opens a socket of each family given by number and says what came of it: a
// client that goes through the C library, built for every ABI of the machine.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int family = atoi(argv[i]);
		int fd = socket(family, family == AF_ALG ? SOCK_SEQPACKET : SOCK_DGRAM, 0);
		printf("%d %s\n", family, fd < 0 ? strerrorname_np(errno) : "open");
		if (fd >= 0)
			close(fd);
	}
	return 0;
}
