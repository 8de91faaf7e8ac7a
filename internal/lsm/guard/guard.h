/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What user space and guard.c say to each other. bpf2go makes Go types of it. */
#pragma once

#define WORDS 4 /* of 64 rules each */

/* A set of rules. */
struct rules {
	__u64 word[WORDS];
};

/* What an entry of a table is about. */
enum kind {
	KIND_META = 1,
	KIND_ALGORITHM = 2, /* of a type and a name; the name "" stands for all of the type */
	KIND_BINARY = 3,
	KIND_USER = 4,
	KIND_UNIT = 5,
	KIND_TEMPLATE = 6, /* of units */
	KIND_CAPABILITIES = 7, /* the set of number index */
};

#define TYPE_SIZE 14  /* of salg_type, with its NUL */
#define TYPE_ROOM 16
#define NAME_SIZE 104 /* the longest that a bind can carry, with its NUL */
#define UNIT_SIZE 120

struct algorithm {
	char type[TYPE_ROOM];
	char name[NAME_SIZE];
} __attribute__((aligned(8)));

/* An executable, as the kernel tells inodes apart. */
struct binary {
	__u64 inode;
	__u32 device; /* the kernel's dev_t */
	__u32 generation;
};

/* "x@.service": prefix "x@", type "service". */
#define PREFIX_SIZE 112
struct template {
	char prefix[PREFIX_SIZE];
	char type[8];
};

struct key {
	__u32 kind;
	__u32 index;
	union {
		struct algorithm algorithm;
		struct binary binary;
		__u32 user;
		char unit[UNIT_SIZE];
		struct template template;
	};
};

enum flag {
	FLAG_AUDIT = 1,	    /* deny nothing, and record what would be denied */
	FLAG_ZERO_COPY = 2, /* refuse zero-copy into AF_ALG */
};

struct meta {
	__u64 generation; /* of the table; entries of containers have it too */
	__s64 socket_answer; /* of a denied socket: minus an errno */
	__s64 bind_answer;
	__u32 flags;
	__u32 capability_sets;
	struct rules reach; /* rules that open any algorithm */
	struct rules no_binary; /* rules without this condition */
	struct rules no_user;
	struct rules no_unit;
	struct rules no_capability;
	struct rules strict; /* rules that ask for a clean start of their executable */
};

struct binary_rules {
	struct rules any; /* rules that name the path alone */
	struct rules content; /* rules that name a digest; hold for this change time */
	__s64 changed_sec;
	__u32 changed_nsec;
	__u32 exact; /* the file system uses its numbers again: any holds for this change time, too */
};

struct capability_rules {
	__u64 set; /* one of these is enough */
	struct rules rules;
};

union value {
	struct meta meta;
	struct rules rules;
	struct binary_rules binary;
	struct capability_rules capability;
};

/* A container that was registered before its process started. */
struct container {
	__u64 generation;
	__u64 cgroup;
};

enum fact {
	FACT_INITIAL_USERS = 1, /* in the initial user namespace */
	FACT_CONTAINED = 2,	/* in a PID or cgroup namespace of its own */
	FACT_LISTENER = 4,	/* a seccomp supervisor can inject descriptors */
	FACT_CLEAN = 8,		/* its executable was started where nobody steers it */
	FACT_BINARY = 16,	/* binary and changed are known */
};

/* Who asks. */
struct facts {
	struct binary binary;
	__s64 changed_sec;
	__u32 changed_nsec;
	__u32 flags;
	__u64 capabilities;
	__u64 cgroup; /* of its unit; of itself where there is none */
	__u32 user;
};

enum hook {
	HOOK_SOCKET = 1,
	HOOK_BIND = 2,
	HOOK_ACCEPT = 3,
};

/* A use, as recorded. */
struct use {
	struct algorithm algorithm; /* empty for a socket */
	__u8 hook;
	__u8 allowed; /* by the policy; in audit the call was carried out all the same */
	__u64 cgroup;
	struct binary binary;
	__u32 user;
	__u32 flags; /* of the facts */
};

struct times {
	__u64 count;
	__u64 first; /* nanoseconds since boot */
	__u64 last;
};

#define STEPS 10
#define STEP_SIZE 48

/* The path of an executable within its mount, from its end: a claim, to look up. */
struct trail {
	char step[STEPS][STEP_SIZE];
};

struct unit_name {
	char name[UNIT_SIZE];
};

/* A socket that was bound under guard. */
struct mark {
	__u64 cookie;
	struct algorithm algorithm;
	__u64 several; /* it was bound again to another, which may have failed */
};

enum counter {
	COUNT_ALLOWED = 0,
	COUNT_DENIED = 1,
	COUNT_NO_TABLE = 2,  /* denied: the slot is empty */
	COUNT_UNMARKED = 3,  /* denied: the socket is from before the load */
	COUNT_FULL = 4,	     /* denied: too many sockets are bound */
	COUNT_LOST = 5,	     /* uses that were not recorded, for want of room */
	COUNT_ZERO_COPY = 6, /* transfers refused */
	COUNTERS = 7,
};

/* An open file, as the iterator writes it. */
struct open_file {
	__u32 process;
	__u32 descriptor;
	struct binary file;
	__s64 changed_sec;
	__u32 changed_nsec;
	__u32 family;  /* of a socket; 0 for other files */
	__u64 address; /* of the socket */
	__u64 parent;  /* of an operation socket; else 0 */
	__u32 marked;  /* the socket, or its parent, was bound under guard */
};

#define LEVELS 16

/* A request to decide in a test: the cgroups from below the root, and the rest. */
struct question {
	struct facts facts;
	struct algorithm algorithm;
	__u32 levels;
	__u64 cgroup[LEVELS];
	char name[LEVELS][256];
	__u32 allowed; /* the answers: the algorithm */
	__u32 reached; /* a socket */
};

struct variable {
	__u64 address;
	__s32 value;
	__s32 error;
};
