/* "attack watch" stands outside: it runs "afalg-policy run", looks at the broker,
 * stops it, or kills it, while the command does what it can. */
#include "attack.h"
#include <dirent.h>
#include <poll.h>

static pid_t child_of(pid_t pid)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/%d/task", pid);
	DIR *tasks = opendir(path);
	for (struct dirent *e; tasks && (e = readdir(tasks));) {
		int child = 0;
		char file[400];
		snprintf(file, sizeof(file), "%s/%s/children", path, e->d_name);
		FILE *f = fopen(file, "r");
		if (f && fscanf(f, "%d", &child) != 1)
			child = 0;
		if (f)
			fclose(f);
		if (child) {
			closedir(tasks);
			return child;
		}
	}
	if (tasks)
		closedir(tasks);
	return -1;
}

/* The guard stands between. */
static pid_t broker_of(pid_t run)
{
	return child_of(child_of(run));
}

/* Waits for a phase of the command; it may end before. */
static void wait_for_phase(pid_t run, int phase)
{
	siginfo_t i = { 0 };
	while (shared->phase < phase) {
		waitid(P_PID, (id_t)run, &i, WEXITED | WNOHANG | WNOWAIT);
		if (i.si_pid == run)
			return;
		usleep(1000);
	}
}

static void measure(pid_t pid, const char *when, long m[3])
{
	char path[64], line[200];
	m[0] = m[1] = m[2] = 0;
	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	DIR *d = opendir(path);
	while (d && readdir(d))
		m[0]++;
	if (d)
		closedir(d);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	FILE *f = fopen(path, "r");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "Threads: %ld", &m[1]);
		sscanf(line, "VmRSS: %ld", &m[2]);
	}
	if (f)
		fclose(f);
	fprintf(stderr, "broker %s: %ld descriptors, %ld threads, %ld KiB\n", when, m[0], m[1], m[2]);
}

/* The broker keeps up to 96 pairs in stock and up to 64 handles of three
 * descriptors each; garbage may lie around. */
static void watch_leak(pid_t run)
{
	long before[3], after[3];
	pid_t broker = broker_of(run);
	measure(broker, "before", before);
	shared->go = 1;
	wait_for_phase(run, 2);
	usleep(500000);
	measure(broker, "after", after);
	printf("descriptors %s\n", after[0] - before[0] < 400 ? "steady" : "grew");
	printf("threads %s\n", after[1] - before[1] < 8 ? "steady" : "grew");
	printf("memory %s\n", after[2] - before[2] < 16 << 10 ? "steady" : "grew");
	shared->go = 2;
}

static void watch_pending(pid_t run)
{
	pid_t broker = broker_of(run);
	long m[3];
	kill(broker, SIGSTOP);
	shared->go = 1;
	wait_for_phase(run, 2);
	sleep(1);
	long long start = now();
	kill(broker, SIGCONT);
	wait_for_phase(run, 3);
	fprintf(stderr, "%ld calls answered in %lld ms\n", shared->entered, (now() - start) / 1000000);
	measure(broker, "then", m);
	shared->go = 2;
}

static void watch_stop(pid_t run, const char *who, int step)
{
	pid_t broker = broker_of(run);
	pid_t guard = child_of(run);
	int pidfd = (int)syscall(SYS_pidfd_open, broker, 0);
	struct pollfd dead = { pidfd, POLLIN, 0 };
	while (shared->calls < 200 || shared->step != step)
		usleep((useconds_t)(rand() % 300));
	if (!strcmp(who, "all"))
		kill(guard, SIGSTOP); /* at once: it does not see the others go */
	if (strcmp(who, "front"))
		kill(broker, SIGKILL);
	if (strcmp(who, "broker"))
		kill(run, SIGKILL);
	if (!strcmp(who, "all"))
		kill(guard, SIGKILL);
	if (strcmp(who, "front")) {
		poll(&dead, 1, PATIENCE * 1000);
		long long death = now();
		usleep(200000);
		printf("opened afterwards %s\n", shared->last > death ? "something" : "nothing");
	}
}

void watch(const char *mode, const char *step, char **argv)
{
	int memory = memfd_create("shared", 0), life[2], status;
	if (memory < 0 || ftruncate(memory, sizeof(*shared)) < 0 || dup2(memory, SHARED) < 0 || pipe2(life, O_CLOEXEC) < 0)
		die("share");
	share();
	pid_t run = fork();
	if (run == 0) {
		dup2(life[1], LIFE);
		execvp(argv[0], argv);
		die(argv[0]);
	}
	close(life[1]);
	int stop = strcmp(mode, "leak") && strcmp(mode, "pending");
	while (stop ? !shared->calls : shared->phase < 1) {
		if (waitpid(run, &status, WNOHANG) == run) {
			printf("ended early: %d\n", status);
			return;
		}
		usleep(1000);
	}
	if (stop)
		watch_stop(run, mode, atoi(step));
	else if (!strcmp(mode, "leak"))
		watch_leak(run);
	else
		watch_pending(run);
	waitpid(run, &status, 0);
	if (WIFSIGNALED(status))
		printf("run died of %d\n", WTERMSIG(status));
	else
		printf("run exited with %d\n", WEXITSTATUS(status));
	struct pollfd alive = { life[0], 0, 0 }; /* hangs up when nobody is left */
	int last = strcmp(mode, "all") ? PATIENCE : 15; /* nobody ends it */
	printf("tree %s\n", poll(&alive, 1, last * 1000) == 1 ? "ended" : "lives on");
	if (stop)
		shared->go = 1;
}
