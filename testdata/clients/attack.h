/* What the parts of attack share. */
#ifndef ATTACK_H
#define ATTACK_H
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/if_alg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* After so many seconds what hangs is ended: long, for emulated machines are slow. */
enum { PATIENCE = 900 };

/* What "watch" shares with the command, at descriptors that nobody closes. */
enum { SHARED = 40, LIFE = 41 };
struct shared {
	volatile int phase, go, step;
	volatile long entered, calls;
	volatile long long last; /* when the last call began that succeeded */
};

/* attack.c */
extern const char *const allowed, *const denied;
const char *name_of(long result);
long checked(long result);
void die(const char *what);
struct sockaddr_alg address(const char *type, const char *name);
long alg_socket(void), alg_bind(int fd, const char *name), alg_key(int fd), alg_accept(int fd);
long digest_length(int op);
void finish(const char *label, int fd);
int must_parent(void);
int parent_of(int pid);
void cmd_try(void), circle(void);

/* attack_races.c */
extern struct shared *shared;
void share(void);
long long now(void);
void cmd_phases(void (*work)(long), long n);
int attack_more(int argc, char **argv);

/* attack_listener.c */
int attack_listener(int argc, char **argv);

/* attack_tree.c */
void cmd_traced(void), cmd_setmm(void), cmd_filters(void);
int attack_tree(int argc, char **argv);

/* attack_guard.c, attack_steering.c: on the kernel half */
int attack_guard(int argc, char **argv), attack_steering(int argc, char **argv);

/* attack_watch.c */
void watch(const char *mode, const char *step, char **argv);

#endif
