// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Takes what a program sends straight into the receive queue of our socket, and on request what we
 * send into the program's, past the network stack.
 *
 *   program ── to_proxy ──► accepted socket
 *   program ◄── to_program ── accepted socket      (only where asked for)
 *
 * A receiver reads what was redirected before what came by TCP, whatever was sent first. Hence the
 * one condition of order, asked anew for each message: everything that the sender has ever given to
 * TCP has been read. Both ends are on this host, so that is one comparison of sequence numbers. It
 * makes it safe to change to TCP and back: bytes that go by TCP behind redirected ones are read
 * behind them, and nothing is redirected again before they are.
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>
#include "kernel.h"
#include "opened.h"
#include "packet.h"

#define AF_INET 2

/* libbpf 1.1 has it by another name, which newer kernels take for a reference. Without const, clang
 * 14 forgets it. */
#define UNTRUSTED __attribute__((btf_type_tag("kptr_untrusted")))

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* Sockets of programs, by their connections. Written by: remember; the process removes what is
 * spliced, the kernel what closes. Read by: join; to_program, as its target; what a member sends
 * runs to_proxy. Bounded: LIMIT_ENDS. Full: the connection is not recorded, and goes by TCP. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LIMIT_ENDS);
	__type(key, struct flow_key);
	__type(value, __u64);
} programs SEC(".maps");

/* Our accepted sockets, by the same keys. Written by: the process, before it runs join; the kernel
 * removes what closes. Read by: join; to_proxy, as its target; where asked for, what a member sends
 * runs to_program. Bounded and full: as programs. */
struct {
	__uint(type, BPF_MAP_TYPE_SOCKHASH);
	__uint(max_entries, LIMIT_ENDS);
	__type(key, struct flow_key);
	__type(value, __u64);
} accepted SEC(".maps");

/* The other end of a socket. It lives and dies with the socket. Written by: join. Read
 * by: to_proxy, to_program, per message. Bounded: by the
 * two maps above. Full (no memory for the socket's options): the connection goes by TCP. */
struct end {
	struct flow_key key;
	/* Not referenced, so never followed but for its numbers: should it be gone, they mean
	 * nothing, and neither is there anything under its key to redirect to. */
	const struct tcp_sock UNTRUSTED *receiver;
};

struct {
	__uint(type, BPF_MAP_TYPE_SK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct end);
} others SEC(".maps");

/* Connections and messages by outcome. Written by: all programs. Read by: the process. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FASTPATH_MAX);
	__type(key, enum fastpath_counter);
	__type(value, __u64);
} fastpath_counters SEC(".maps");

static __always_inline int because(enum fastpath_counter reason, int result)
{
	__u64 *value = bpf_map_lookup_elem(&fastpath_counters, &reason);

	if (value)
		*value += 1;
	return result;
}

/* The key of a connection that a program has opened. volatile: the verifier takes no load of two
 * fields at once. */
static __always_inline void read_key(const volatile struct bpf_sock_ops *ctx, struct flow_key *key)
{
	if (ctx->family == AF_INET) {
		map_v4(key->source, ctx->local_ip4);
		map_v4(key->destination, ctx->remote_ip4);
	} else {
		__be32 source[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
				    ctx->local_ip6[3]};
		__be32 destination[4] = {ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
					 ctx->remote_ip6[3]};

		__builtin_memcpy(key->source, source, 16);
		__builtin_memcpy(key->destination, destination, 16);
	}
	key->source_port = bpf_htons(ctx->local_port);
	key->destination_port = ctx->remote_port >> 16;
}

/*
 * Attached to the cgroup of what is intercepted. Records the program's socket before its connect(2)
 * returns, so that no thread can be inside a receive that knows nothing of redirected bytes.
 * Always returns 1, which leaves the socket as it is.
 */
SEC("sockops")
int remember(struct bpf_sock_ops *ctx)
{
	struct bpf_sock *sk;
	struct tcp_sock *tcp;
	struct opened *opened;
	struct flow_key key = {};

	if (ctx->op != BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
		return 1;
	sk = ctx->sk;
	opened = sk ? bpf_sk_storage_get(&sockets, sk, NULL, 0) : NULL;
	if (!opened || opened->decided != DECIDED_BY_RULE || opened->verdict.action != ACTION_PROXY)
		return because(FASTPATH_NOT_INTERCEPTED, 1);
	tcp = bpf_skc_to_tcp_sock(sk);
	/* Such sockets in a sockmap have crashed Linux 6.1. */
	if (!tcp || (bpf_core_field_exists(tcp->is_mptcp) && tcp->is_mptcp))
		return because(FASTPATH_MPTCP, 1);
	read_key(ctx, &key);
	if (bpf_sock_hash_update(ctx, &programs, &key, BPF_ANY))
		return because(FASTPATH_FULL, 1);
	return because(FASTPATH_RECORDED, 1);
}

static __always_inline enum fastpath_counter
introduce(const struct flow_key *key, struct bpf_sock *program, struct bpf_sock *ours)
{
	struct tcp_sock *program_tcp = bpf_skc_to_tcp_sock(program);
	struct tcp_sock *our_tcp = bpf_skc_to_tcp_sock(ours);
	struct end *theirs, *own;

	if (!program_tcp || !our_tcp)
		return FASTPATH_GONE;
	theirs = bpf_sk_storage_get(&others, program, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	own = bpf_sk_storage_get(&others, ours, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!theirs || !own)
		return FASTPATH_FULL;
	theirs->key = *key;
	own->key = *key;
	own->receiver = program_tcp;
	theirs->receiver = our_tcp;
	return FASTPATH_JOINED;
}

/*
 * Run by the process when it knows that it carries a connection to its end, on a frame that holds
 * the struct flow_key: from now on what the program sends may be redirected. Returns an enum
 * fastpath_counter.
 */
SEC("tc")
int join(struct __sk_buff *skb)
{
	enum fastpath_counter outcome = FASTPATH_GONE;
	struct bpf_sock *program, *ours;
	struct flow_key key;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &key, sizeof(key)))
		return because(outcome, outcome);
	program = bpf_map_lookup_elem(&programs, &key);
	ours = bpf_map_lookup_elem(&accepted, &key);
	if (program && ours)
		outcome = introduce(&key, program, ours);
	else if (!program)
		outcome = FASTPATH_UNRECORDED;
	if (program)
		bpf_sk_release(program);
	if (ours)
		bpf_sk_release(ours);
	return because(outcome, outcome);
}

/* Whether a message may overtake the network stack; if not, why. `back`: towards the program. */
static __always_inline enum fastpath_counter judge(const struct sk_msg_md *msg,
						   const struct end *end, bool back)
{
	struct tcp_sock *sender = bpf_skc_to_tcp_sock(msg->sk);
	const struct tcp_sock *receiver;
	const struct sock *queue;

	if (!end || !sender)
		return FASTPATH_NOT_JOINED;
	receiver = end->receiver;
	if (!receiver)
		return FASTPATH_NOT_JOINED;
	if (((const struct inet_connection_sock *)sender)->icsk_ulp_ops)
		return FASTPATH_WRAPPED;
	if (receiver->copied_seq != sender->write_seq)
		return FASTPATH_BEHIND;
	/* A program may sit in a receive that waits for more from TCP (MSG_WAITALL, SO_RCVLOWAT),
	 * and would never look at what is redirected. Ours does not block. */
	if (back && receiver->bytes_received)
		return FASTPATH_DECIDED;
	/* With all from TCP read, what counts against the receive buffer was redirected (since
	 * 6.13). The other half is left to the window that TCP has announced already. */
	queue = (const struct sock *)receiver;
	if (queue->sk_backlog.rmem_alloc.counter + msg->size > (__u32)queue->sk_rcvbuf / 2)
		return FASTPATH_UNREAD;
	return FASTPATH_REDIRECTED;
}

/* What a program sends. Always SK_PASS: by TCP, unless it is redirected; any other answer, such as
 * the helper's error, is EACCES to the program. */
SEC("sk_msg")
int to_proxy(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&others, msg->sk, NULL, 0);
	enum fastpath_counter outcome = judge(msg, end, false);

	if (outcome == FASTPATH_REDIRECTED && end &&
	    bpf_msg_redirect_hash(msg, &accepted, &end->key, BPF_F_INGRESS) != SK_PASS)
		outcome = FASTPATH_NOT_JOINED;
	return because(outcome, SK_PASS);
}

/* What we send. The same. */
SEC("sk_msg")
int to_program(struct sk_msg_md *msg)
{
	struct end *end = bpf_sk_storage_get(&others, msg->sk, NULL, 0);
	enum fastpath_counter outcome = judge(msg, end, true);

	if (outcome == FASTPATH_REDIRECTED && end &&
	    bpf_msg_redirect_hash(msg, &programs, &end->key, BPF_F_INGRESS) != SK_PASS)
		outcome = FASTPATH_NOT_JOINED;
	return because(outcome, SK_PASS);
}
