/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Units and containers, by cgroup. */
#pragma once

struct scan {
	__u32 length;
	__u32 at;  /* the first '@', if any_at */
	__u32 dot; /* the last '.' */
	__u8 any_at;
	__u8 any_dot;
	__u8 foreign; /* a character that no unit has before its last dot */
	__u8 foreign_now; /* since the last dot */
};

/* Where a walk down the cgroups of a task is. */
struct walk {
	__u64 ancestors; /* address of the task's cgroups, from the root */
	const struct question *question; /* in a test, instead */
	__u64 generation;
	__u32 levels;
	__u8 done; /* the unit is found, or there is none */
	__u8 found;
	__u8 registered;
	__u64 cgroup; /* of the unit */
	__u64 source; /* of its name */
	struct rules granted;
	struct scan scan;
	struct key key; /* the unit */
};

static __always_inline int of_unit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= ':') || c == '-' || c == '_' ||
	       c == '.' || c == '\\' || c == '@';
}

static long scan_character(__u32 i, struct walk *w)
{
	if (i >= UNIT_SIZE)
		return 1;
	char c = w->key.unit[i];
	if (!c)
		return 1;
	w->scan.length = i + 1;
	if (c == '@' && !w->scan.any_at) {
		w->scan.any_at = 1;
		w->scan.at = i;
	}
	if (c == '.') {
		w->scan.any_dot = 1;
		w->scan.dot = i;
		w->scan.foreign |= w->scan.foreign_now;
	}
	if (!of_unit(c))
		w->scan.foreign_now = 1;
	return 0;
}

/* Points source at the name of a cgroup, and returns the id of that. */
static __always_inline __u64 cgroup_at(struct walk *w, __u32 level, const char **source)
{
	struct cgroup *cg = 0;

	if (w->question) {
		*source = w->question->name[level & (LEVELS - 1)];
		return w->question->cgroup[level & (LEVELS - 1)];
	}
	bpf_probe_read_kernel(&cg, sizeof(cg), (void *)(w->ancestors + 8ULL * (level + 1)));
	*source = BPF_CORE_READ(cg, kn, name);
	return BPF_CORE_READ(cg, kn, id);
}

/* Looks whether a cgroup is that of the unit: the first that is no slice. */
static __always_inline void unit_level(struct walk *w, const char *source, __u64 id)
{
	char first = 0, tail[8] = {};
	struct scan *s = &w->scan;

	w->done = 1;
	bpf_probe_read_kernel(&first, 1, source);
	if (first == '_') /* systemd's escape */
		source++;
	__builtin_memset(&w->key, 0, sizeof(w->key));
	__builtin_memset(s, 0, sizeof(*s));
	w->key.kind = KIND_UNIT;
	if (bpf_probe_read_kernel_str(w->key.unit, UNIT_SIZE, source) >= UNIT_SIZE)
		return; /* too long for a key */
	bpf_loop(UNIT_SIZE, scan_character, w, 0);
	if (!s->any_dot || s->dot == 0 || s->foreign)
		return;
	if (s->length - s->dot == 6) {
		bpf_probe_read_kernel(tail, 6, source + s->dot);
		if (*(__u64 *)tail == 0x6563696c732eULL) { /* ".slice" */
			w->done = s->any_at;
			return;
		}
	}
	if (s->any_at && (s->at == 0 || s->at + 1 == s->dot))
		return;
	w->found = 1;
	w->cgroup = id;
	w->source = (__u64)source;
}

/* Makes the key of the template that a unit is an instance of. */
static __noinline long template_of(struct walk *w)
{
	__u32 size = w->scan.at + 2; /* with the '@' and a NUL */
	const char *source = (const char *)w->source;

	if (!w->scan.any_at || w->scan.dot + 1 <= size || size > PREFIX_SIZE)
		return 0;
	__builtin_memset(&w->key, 0, sizeof(w->key));
	w->key.kind = KIND_TEMPLATE;
	bpf_probe_read_kernel_str(w->key.template.prefix, size, source);
	bpf_probe_read_kernel_str(w->key.template.type, sizeof(w->key.template.type), source + w->scan.dot + 1);
	return 1;
}

static long walk_level(__u32 i, struct walk *w)
{
	struct container c = {.generation = w->generation};
	struct rules *granted;
	const char *source = 0;

	if (i >= w->levels)
		return 1;
	c.cgroup = cgroup_at(w, i, &source);
	granted = bpf_map_lookup_elem(&containers, &c);
	if (granted) {
		keep(&w->granted, granted);
		w->registered = 1;
	}
	if (!w->done)
		unit_level(w, source, c.cgroup);
	return 0;
}

static __always_inline void walk_from(struct walk *w, __u64 generation)
{
	__builtin_memset(w, 0, sizeof(*w));
	__builtin_memset(&w->granted, 0xff, sizeof(w->granted));
	w->generation = generation;
}

/* Keeps the rules that the cgroups of the task leave: those of its unit, and the
 * grants of its container. What is contained and not registered holds none. */
static __noinline int by_cgroup(void *table, const union value *meta, struct facts *f, struct rules *set, const struct question *q)
{
	union value *named;
	struct walk w;

	walk_from(&w, meta->meta.generation);
	if (q) {
		w.question = q;
		w.levels = q->levels;
	} else {
		struct task_struct *task = bpf_get_current_task_btf();
		struct cgroup *cg = BPF_CORE_READ(task, cgroups, dfl_cgrp);

		w.ancestors = (__u64)cg + __builtin_preserve_field_info(cg->ancestors, BPF_FIELD_BYTE_OFFSET);
		w.levels = BPF_CORE_READ(cg, level);
		f->cgroup = BPF_CORE_READ(cg, kn, id);
	}
	bpf_loop(LEVELS, walk_level, &w, 0);
	if (!w.registered && (f->flags & FACT_CONTAINED))
		return 0;
	keep(set, &w.granted);
	w.granted = meta->meta.no_unit; /* from here on: the rules that the unit leaves */
	if (w.found) {
		f->cgroup = w.cgroup;
		named = bpf_map_lookup_elem(table, &w.key);
		if (named)
			join(&w.granted, &named->rules);
		if (template_of(&w)) {
			named = bpf_map_lookup_elem(table, &w.key);
			if (named)
				join(&w.granted, &named->rules);
		}
	}
	keep(set, &w.granted);
	return 1;
}
