/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Connections that were held and then left alone: their sockets tell how they are doing. */
#ifndef TPROXY_ALONE_H
#define TPROXY_ALONE_H

#include "ends.h"
#include "forge.h"
#include "kernel.h"
#include "maps.h"

/* SOCK_DONE of include/net/sock.h: a FIN has come. */
#define PEER_IS_DONE (1 << 1)

/* Payload of a connection, in a state or behind its last: SYN and FIN are numbered, too, and
 * counted (RFC 4898, tcpEStatsAppHCThruOctetsAcked). */
static __always_inline __u64 sent_by_program(const struct sock *sk, __u32 state, bool in_order)
{
	__u64 acked = BPF_CORE_READ((const struct tcp_sock *)sk, bytes_acked);
	bool fin = state == BPF_TCP_FIN_WAIT2 ||
		   (in_order && (state == BPF_TCP_CLOSING || state == BPF_TCP_LAST_ACK));

	return acked > 1 + fin ? acked - 1 - fin : 0;
}

static __always_inline __u64 received_by_program(const struct sock *sk)
{
	__u64 received = BPF_CORE_READ((const struct tcp_sock *)sk, bytes_received);

	return received - (received && BPF_CORE_READ(sk, __sk_common.skc_flags) & PEER_IS_DONE);
}

/* What the process waits to hear of a connection that it was asked about. */
static __always_inline void tell_of(struct sock *sk, int from, int to)
{
	struct opened *opened = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	bool over = to == BPF_TCP_CLOSE;
	struct opening_event *event;

	if (!opened || !opened->id)
		return;
	if (opened->stage != STAGE_ALONE && !(over && from == BPF_TCP_SYN_SENT))
		return;
	if (!over && opened->reached)
		return;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (event) {
		event->event = over ? EVENT_ENDED : EVENT_REACHED;
		event->id = opened->id;
		event->state = from;
		event->error = over ? BPF_CORE_READ(sk, sk_err) : 0;
		event->sent = over ? sent_by_program(sk, from, !event->error) : 0;
		event->received = over ? received_by_program(sk) : 0;
		bpf_ringbuf_submit(event, 0);
	} else {
		count(COUNT_EVENT_LOST);
	}
	opened->reached = 1;
	if (over)
		opened->id = 0;
}

static __always_inline bool is_of_this_host(const struct sock *sk)
{
	return sk->__sk_common.skc_net.net->ns.inum == settings.netns;
}

/*
 * Once more what connect_owner does about connections that the process waits for. On one CPU a
 * program does not run within itself: an interrupt that brings an answer while somebody else begins
 * to connect goes unheard (recursion_misses of `bpftool prog`), one in a thousand at 3 000
 * connections a second. It meets one of the two. Always returns 0.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(connect_outcome, struct sock *sk, int from, int to)
{
	if ((to == BPF_TCP_ESTABLISHED || to == BPF_TCP_CLOSE) && is_of_this_host(sk))
		tell_of(sk, from, to);
	return 0;
}

/* The program's socket that the process asks about, to be released, if it is still that one.
 * `refuse`: nothing that it sends leaves any more. */
static __always_inline struct bpf_sock *asked_about(struct __sk_buff *skb,
						    const struct watching *request, bool refuse)
{
	struct bpf_sock *sk = sender(skb, &request->key, skb->protocol == bpf_htons(ETH_P_IPV6));
	struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	struct opened *opened = tcp ? bpf_sk_storage_get(&sockets, tcp, NULL, 0) : NULL;

	if (opened && opened->id == request->id && opened->stage == STAGE_ALONE) {
		if (refuse)
			opened->verdict.action = ACTION_REJECT;
		return sk;
	}
	if (sk)
		bpf_sk_release(sk);
	return NULL;
}

/* Run by the process, on a frame that holds a struct watching: answers with a struct watched. */
SEC("tc")
int watch(struct __sk_buff *skb)
{
	struct watched watched = {};
	struct watching request;
	const struct sock *tcp;
	struct bpf_sock *sk;

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &request, sizeof(request)))
		return RELEASE_FAILED;
	sk = asked_about(skb, &request, false);
	if (!sk)
		return RELEASE_GONE;
	watched.state = sk->state;
	tcp = (const struct sock *)bpf_skc_to_tcp_sock(sk);
	if (tcp) {
		watched.sent = sent_by_program(tcp, watched.state, false);
		watched.received = received_by_program(tcp);
	}
	bpf_sk_release(sk);
	return bpf_skb_store_bytes(skb, ETH_HLEN, &watched, sizeof(watched), 0) ? RELEASE_FAILED
										: RELEASED;
}

/*
 * Run by the process, on a frame that holds a struct watching: resets both ends. What an upstream
 * has not had of the program's, it asks for, and hears from this host that there is no such
 * connection (RFC 5961, 3.2). A program that does not believe in its reset, as where segments are
 * signed (RFC 2385), or bytes have come meanwhile, gets the next one for whatever it sends.
 */
SEC("tc")
int cut(struct __sk_buff *skb)
{
	struct tcphdr up = {.rst = 1}, down = {.rst = 1};
	bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6), opening;
	struct watching request;
	struct device *device;
	struct flow_key back;
	struct tcp_sock *tcp;
	struct bpf_sock *sk;
	__u32 size = ETH_HLEN + (v6 ? sizeof(struct ipv6hdr) : sizeof(struct iphdr)) + sizeof(up);

	if (bpf_skb_load_bytes(skb, ETH_HLEN, &request, sizeof(request)))
		return RELEASE_FAILED;
	device = bpf_map_lookup_elem(&devices, &request.slot);
	sk = device ? asked_about(skb, &request, true) : NULL;
	if (!sk)
		return RELEASE_GONE;
	tcp = bpf_skc_to_tcp_sock(sk);
	if (!tcp) {
		bpf_sk_release(sk);
		return RELEASE_GONE;
	}
	opening = sk->state == BPF_TCP_SYN_SENT;
	up.seq = bpf_htonl(tcp->snd_nxt);
	if (opening) {
		down.ack = 1;
		down.ack_seq = up.seq;
	} else {
		down.seq = bpf_htonl(tcp->rcv_nxt);
	}
	bpf_sk_release(sk);
	if (bpf_skb_change_tail(skb, size, 0))
		return RELEASE_FAILED;
	if (!opening) {
		if (write_segment(skb, &request.key, v6, request.hop, &up) ||
		    bpf_skb_store_bytes(skb, ETH_ALEN, device->mac, ETH_ALEN, 0))
			return RELEASE_FAILED;
		bpf_clone_redirect(skb, device->ifindex, 0);
	}
	reverse(&back, &request.key);
	if (write_segment(skb, &back, v6, device->mac, &down))
		return RELEASE_FAILED;
	bpf_clone_redirect(skb, device->ifindex, BPF_F_INGRESS);
	return RELEASED;
}

#endif
