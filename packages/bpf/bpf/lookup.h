/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The look-up in compiled lists of LIST_SIZE bytes; LIST names what is made for that size. Included
 * once per size, for the verifier must know how much memory it looks at.
 */

/* Every position is masked: a wrong one would read a wrong row, and nothing else. */
#define READ(type, list, at) (*(type *)((const void *)(list) + ((at) & (LIST_SIZE - sizeof(type)))))

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, 1);
	__type(key, __u32);
	__array(
	    values, struct {
		    __uint(type, BPF_MAP_TYPE_ARRAY);
		    __uint(max_entries, 1);
		    __uint(key_size, 4);
		    __uint(value_size, LIST_SIZE + CAPACITY_SLACK);
	    });
} LIST(rules) SEC(".maps");

struct LIST(list) {
	__u8 bytes[LIST_SIZE + CAPACITY_SLACK];
};

/*
 * From a ref to the row of a key, or to a node for the lower half of one. What differs from packet
 * to packet decides no branch: a processor would guess wrong half the time, for 5 ns each, and the
 * verifier would follow both ways.
 */
static __always_inline __u32 LIST(descend)(const void *list, __u32 ref, __u32 depth, __u64 key)
{
	for (__u32 level = 0; level < LIMIT_DEPTH && level < depth; level++) {
		const struct node *node = &READ(struct node, list, ref);
		__s64 index = (key >> (node->shift & 63)) - node->base + 1;
		__s64 beyond = index - node->count - 1;
		__u32 is_node = -(ref >> 31);
		__u32 next;

		index -= beyond & NOT_NEGATIVE(beyond);
		index &= NOT_NEGATIVE(index);
		next = READ(__u32, list, ref + sizeof(*node) + index * 4);
		barrier_var(is_node);
		ref = (next & is_node) | (ref & ~is_node);
	}
	return ref;
}

/* The same for what few lists ask of. Global: it is verified by itself, once, and its loop not anew
 * for each field. */
__noinline __u32 LIST(descend_apart)(const struct LIST(list) * list, __u32 ref, __u32 depth,
				     __u64 key)
{
	return list ? LIST(descend)(list, ref, depth, key) : 0;
}

/* The next level of a table, if this one does not end the look-up. */
#define NEXT_LEVEL(ref, index)                                                                     \
	do                                                                                         \
		if ((ref)&REF_NODE)                                                                \
			ref = READ(__u32, list, (ref) + (index)*4);                                \
	while (0)

static __always_inline __u32 LIST(address_row)(const void *list, const struct dimension *of,
					       const __u8 address[16])
{
	__u32 key = bpf_ntohl(*(const __be32 *)(address + 12));
	__u32 ref = of->root;

	NEXT_LEVEL(ref, key >> 16);
	/* So many addresses that their tables would not stay in the cache. */
	if (of->depth)
		return LIST(descend)(list, ref, of->depth, key & 0xffff);
	NEXT_LEVEL(ref, key >> 8 & 0xff);
	NEXT_LEVEL(ref, key & 0xff);
	return ref;
}

static __always_inline __u32 LIST(row)(const void *list, const struct dimension *of, __u64 key)
{
	/* Most lists leave some field alone. */
	return of->depth ? LIST(descend_apart)(list, of->root, of->depth, key) : of->root;
}

/* Of the upper half of 128 bits: a row, or where the lower half leads to one. */
static __always_inline __u32 LIST(upper)(const void *list, const struct dimension *of,
					 const __u8 key[16])
{
	return LIST(descend)(list, of->root, of->depth, bpf_be64_to_cpu(*(const __u64 *)key));
}

static __always_inline __u32 LIST(lower)(const void *list, const struct dimension *of,
					 const __u8 key[16], __u32 ref)
{
	if (ref & REF_LOWER)
		ref = LIST(descend)(list, ref | REF_NODE, of->lower_depth,
				    bpf_be64_to_cpu(*(const __u64 *)(key + 8)));
	return ref;
}

static __always_inline __u32 LIST(wide_row)(const void *list, const struct dimension *of,
					    const __u8 key[16])
{
	return LIST(lower)(list, of, key, LIST(upper)(list, of, key));
}

/* The row of the deepest cgroup above the socket that a rule names. */
static __always_inline __u32 LIST(cgroup_row)(const void *list, const struct dimension *dimension,
					      struct __sk_buff *skb)
{
	__u32 row = dimension->absent;

	if (!dimension->depth)
		return row;
	for (int level = 0; level < LIMIT_CGROUP_DEPTH; level++) {
		__u64 id = bpf_skb_ancestor_cgroup_id(skb, level);
		__u32 found;

		/* 0, on the first level: no cgroup is known. */
		if (!id && level)
			break;
		found = LIST(row)(list, dimension, id);
		/* Between the ids that are named, keys lead to no row. */
		if (found)
			row = found;
		if (!id)
			break;
	}
	return row;
}

/* What the summaries of all rows have in common. */
static __always_inline __u64 LIST(summarise)(const void *list, const struct rows *rows)
{
	__u64 bits = READ(__u64, list, rows->of[0]);

	for (int i = 1; i < PACKET_ROWS; i++)
		bits &= READ(__u64, list, rows->of[i]);
	if (rows->count > PACKET_ROWS)
		for (int i = PACKET_ROWS; i < PACKET_ROWS + OWNER_ROWS; i++)
			bits &= READ(__u64, list, rows->of[i]);
	return bits;
}

/* Looks at the next candidate: what all rows have in common in its group. Mostly it has a rule, so
 * that branch is guessed well; which of its words it is in is not, hence no branch. */
static __always_inline void LIST(compare)(const void *list, const struct rows *rows,
					  struct search *search, __u32 words)
{
	const struct ruleset *ruleset = list;
	__u64 lowest = search->candidates & -search->candidates;
	__u64 bits = ~0ull, second = ~0ull, third = ~0ull, fourth = ~0ull;
	__u32 word = trailing_zeros(lowest) * words;

	search->candidates ^= lowest;
	for (__u32 i = 0; i < PACKET_ROWS + OWNER_ROWS; i++) {
		__u32 row = rows->of[i], before, at;

		if (i == PACKET_ROWS && rows->count <= PACKET_ROWS)
			break;
		before = population(READ(__u64, list, row) & (lowest - 1));
		at = words > 1 ? READ(__u32, list, row + 8 + before * 4) : row + 8 + before * 8;
		bits &= READ(__u64, list, at);
		if (words > 1) {
			second &= READ(__u64, list, at + 8);
			third &= READ(__u64, list, at + 16);
			fourth &= READ(__u64, list, at + 24);
		}
	}
	if (words > 1) {
		word += fall_to(&bits, second);
		word += fall_to(&bits, third);
		word += fall_to(&bits, fourth);
	}
	if (bits) {
		__u32 bit = word * 64 + trailing_zeros(bits);
		__u32 rule = READ(__u16, list, ruleset->order + bit * 2);

		if (rule < search->best)
			search->best = rule;
	}
}

static __always_inline void LIST(compare_one)(const void *list, const struct rows *rows,
					      struct search *search)
{
	if (((const struct ruleset *)list)->group == 1)
		LIST(compare)(list, rows, search, 1);
	else
		LIST(compare)(list, rows, search, LIMIT_GROUP);
}

struct LIST(rest) {
	const void *list;
	const struct rows *rows;
	struct search search;
};

static long LIST(compare_next)(__u32 index, struct LIST(rest) * rest)
{
	if (!rest->search.candidates)
		return 1;
	LIST(compare_one)(rest->list, rest->rows, &rest->search);
	return 0;
}

/* The first rule of what is left to search. */
__noinline __u32 LIST(finish)(const struct LIST(list) * list, const struct rows *rows,
			      const struct search *search)
{
	struct LIST(rest) rest = {.list = list, .rows = rows};

	if (!list || !rows || !search)
		return NO_RULE;
	rest.search = *search;
	bpf_loop(64, LIST(compare_next), &rest, 0);
	return rest.search.best;
}

/* The rows of a packet's addresses and ports. In place: a call costs 7 ns where returns are guarded
 * (SRSO, Documentation/admin-guide/hw-vuln/srso.rst of the kernel). */
static __always_inline void LIST(packet_rows)(const void *list, const struct question *question,
					      struct rows *rows)
{
	const struct dimension *of;
	__u32 service, source;

	of = ((const struct ruleset *)list)->dimensions;
	if (question->v6) {
		const struct dimension *to = &of[FIELD_TO6], *from = &of[FIELD_FROM6];
		__u32 destination = LIST(upper)(list, to, question->key.destination);

		/* Both before a branch that is often guessed wrong: 34 ns became 30 at 16 rules. */
		source = LIST(upper)(list, from, question->key.source);
		rows->of[0] = LIST(lower)(list, to, question->key.destination, destination);
		rows->of[1] = LIST(lower)(list, from, question->key.source, source);
	} else {
		rows->of[0] = LIST(address_row)(list, &of[FIELD_TO4], question->key.destination);
		rows->of[1] = LIST(address_row)(list, &of[FIELD_FROM4], question->key.source);
	}
	service = of[FIELD_SERVICE].root;
	NEXT_LEVEL(service, question->protocol);
	NEXT_LEVEL(service, bpf_ntohs(question->key.destination_port));
	rows->of[2] = service;
	source = of[FIELD_SPORT].root;
	NEXT_LEVEL(source, bpf_ntohs(question->key.source_port));
	rows->of[3] = source;
}

/* The rows of what else is known of a packet. Global: it is verified by itself, once, and not after
 * each of the ways to the rows before. */
__noinline int LIST(owner_rows)(struct __sk_buff *skb, const struct LIST(list) * list,
				const struct question *question, struct rows *rows)
{
	const struct dimension *of;
	__u32 *more;

	if (!list || !question || !rows)
		return 0;
	of = ((const struct ruleset *)list)->dimensions;
	more = rows->of + PACKET_ROWS;
	more[0] = question->has_uid ? LIST(row)(list, &of[FIELD_UID], question->uid)
				    : of[FIELD_UID].absent;
	more[1] = of[FIELD_GID].absent;
	more[2] = of[FIELD_PROCESS].absent;
	if (question->has_owner) {
		more[1] = LIST(row)(list, &of[FIELD_GID], question->gid);
		more[2] = LIST(wide_row)(list, &of[FIELD_PROCESS], (const __u8 *)question->name);
	}
	more[3] = LIST(cgroup_row)(list, &of[FIELD_CGROUP], skb);
	more[4] = LIST(row)(list, &of[FIELD_INTERFACE], question->ifindex);
	more[5] = LIST(row)(list, &of[FIELD_MARK], question->mark);
	more[6] = LIST(row)(list, &of[FIELD_DSCP], question->dscp);
	rows->count = PACKET_ROWS + OWNER_ROWS;
	return 0;
}

/* The verdict of the first rule that matches, or the default. Global: or the verifier would follow
 * every size of list from every way that leads here. */
__noinline int LIST(ask)(struct __sk_buff *skb, const struct LIST(list) * list,
			 const struct question *question, struct verdict *verdict)
{
	const struct ruleset *ruleset = (const void *)list;
	struct rows rows = {};
	struct search search = {.best = NO_RULE};

	if (!list || !question || !verdict)
		return 0;
	LIST(packet_rows)(list, question, &rows);
	if (ruleset->extended)
		LIST(owner_rows)(skb, list, question, &rows);
	search.candidates = LIST(summarise)(list, &rows);
	if (!ruleset->group) {
		/* One word of rules: these are they. */
		if (search.candidates)
			search.best = READ(__u16, list,
					   ruleset->order + trailing_zeros(search.candidates) * 2);
	} else if (search.candidates) {
		/* Mostly there are one or two. */
		LIST(compare_one)(list, &rows, &search);
		if (search.candidates)
			LIST(compare_one)(list, &rows, &search);
		if (search.candidates)
			search.best = LIST(finish)(list, &rows, &search);
	}
	*verdict = READ(struct verdict, list,
			ruleset->verdicts +
			    (search.best == NO_RULE ? 0 : search.best) * sizeof(struct verdict));
	return 0;
}

#undef NEXT_LEVEL
#undef READ
#undef LIST
#undef LIST_SIZE
