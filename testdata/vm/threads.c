// Has two threads, and writes to /tmp/said what each of them gets when it asks
// for AF_ALG, whenever there is a file /tmp/ask: a process that is restored in
// the middle of its life.
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *ask(void)
{
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);
	if (fd < 0)
		return strerrorname_np(errno);
	close(fd);
	return "open";
}

static const char *answer;
static int asked;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn = PTHREAD_COND_INITIALIZER;

static void *second(void *unused)
{
	pthread_mutex_lock(&lock);
	for (;;) {
		while (!asked)
			pthread_cond_wait(&turn, &lock);
		answer = ask();
		asked = 0;
		pthread_cond_signal(&turn);
	}
	return unused;
}

int main(void)
{
	pthread_t thread;

	if (pthread_create(&thread, NULL, second, NULL))
		return 1;
	for (;;) {
		if (unlink("/tmp/ask")) {
			usleep(100000);
			continue;
		}
		pthread_mutex_lock(&lock);
		asked = 1;
		pthread_cond_signal(&turn);
		while (asked)
			pthread_cond_wait(&turn, &lock);
		FILE *f = fopen("/tmp/saying", "w");
		fprintf(f, "%s %s\n", ask(), answer);
		fclose(f);
		pthread_mutex_unlock(&lock);
		rename("/tmp/saying", "/tmp/said");
	}
}
