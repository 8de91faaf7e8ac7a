package seccomp

/*
#include <malloc.h>

// The Go runtime frees a piece of C's memory in each thread that it starts, for
// which glibc maps an arena of 128 MiB. One for all threads is enough: libseccomp
// works in one.
__attribute__((constructor)) static void share_arena(void) {
#ifdef M_ARENA_MAX
	mallopt(M_ARENA_MAX, 1);
#endif
}
*/
import "C"
