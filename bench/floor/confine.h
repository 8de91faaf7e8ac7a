/* A filter, loaded for this process; its listener goes out over BROKER. */
#ifndef CONFINE_H
#define CONFINE_H

#include <err.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { BROKER = 4 };

#ifndef SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
#define SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV (1UL << 5)
#endif

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

#endif
