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
#include <err.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

enum { STAY = 0, GO = 3, BROKER = 4, FEW = 10, MOST = 1 << 20 };

#define WARM_UP 300000000L

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

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

/* Whoever could trace the broker is refused by it. */
static void disarm(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[2];
	if (syscall(SYS_capget, &header, caps))
		err(2, "capget");
	caps[0].effective &= ~(1U << CAP_SYS_PTRACE);
	caps[0].permitted &= ~(1U << CAP_SYS_PTRACE);
	caps[0].inheritable &= ~(1U << CAP_SYS_PTRACE);
	if (syscall(SYS_capset, &header, caps) || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		err(2, "give up privileges");
}

static void send_listener(int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control };
	*CMSG_FIRSTHDR(&m) = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), &fd, sizeof fd);
	if (sendmsg(BROKER, &m, 0) != 1)
		err(2, "sendmsg");
	close(fd);
}

static void confine(struct sock_fprog *filter)
{
	const unsigned long listen = SECCOMP_FILTER_FLAG_NEW_LISTENER;
	int fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, listen | SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, filter);
	if (fd < 0) /* before Linux 5.19 */
		fd = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, listen, filter);
	if (fd < 0)
		err(2, "seccomp");
	send_listener(fd);
}

static struct sock_fprog read_filter(const char *path)
{
	static struct sock_filter code[4096];
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, code, sizeof code);
	if (n <= 0)
		err(2, "%s", path);
	close(fd);
	return (struct sock_fprog){ n / sizeof *code, code };
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
