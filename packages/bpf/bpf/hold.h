/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * A connection waits for its decision where nothing has happened yet: its SYN is with the process,
 * and its program in connect(2). What is then left alone has never been touched; what is refused,
 * or leads to an upstream that cannot be reached, is refused to the program, too (RFC
 * 9293, 3.10.7.1).
 */
#ifndef TPROXY_HOLD_H
#define TPROXY_HOLD_H

#include "ends.h"
#include "kernel.h"
#include "maps.h"
#include "packet.h"
#include "redirect.h"
#include "reject.h"

/* Global: or the verifier would follow all that comes behind from each of the ways through it. */
__noinline enum reading read_sent(struct __sk_buff *skb, __u32 hard_header, struct packet *packet)
{
	return packet ? read_packet(skb, hard_header, packet) : READ_BROKEN;
}

/* Of the last connection that was held. Written by: wan_egress. */
__u32 last_id SEC(".data.last_id");

static __always_inline __u32 next_id(void)
{
	__u32 id = __sync_fetch_and_add(&last_id, 1) + 1;

	return id ?: __sync_fetch_and_add(&last_id, 1) + 1;
}

/* Whether the process will find a program's socket again by the addresses of its packets: not where
 * something on this host has translated them, nor in another routing domain (VRF). */
static __always_inline bool is_found(struct __sk_buff *skb, const struct packet *packet, __u32 id)
{
	struct bpf_sock *sk = sender(skb, &packet->key, packet->ethertype == ETH_P_IPV6);
	struct tcp_sock *tcp = sk ? bpf_skc_to_tcp_sock(sk) : NULL;
	struct opened *opened = tcp ? bpf_sk_storage_get(&sockets, tcp, NULL, 0) : NULL;
	bool found = opened && opened->id == id;

	if (sk)
		bpf_sk_release(sk);
	return found;
}

/* Whether somebody would accept it: of a family that was switched on just now, nobody. */
static __always_inline bool has_listener(__u32 slot, bool v6)
{
	__u32 key = slot * 2 + v6;
	struct bpf_sock *sk = bpf_map_lookup_elem(&listeners, &key);

	if (!sk)
		return false;
	bpf_sk_release(sk);
	return true;
}

/* Gives a SYN to the process, if it can; what carries data (RFC 7413) is none that can wait. */
static __noinline bool hold(struct __sk_buff *skb, const struct packet *packet,
			    const struct flow *flow, struct opened *opened, bool has_mac)
{
	__u32 length = skb->len - packet->network;
	struct held *held;

	if (!has_listener(flow->slot, packet->ethertype == ETH_P_IPV6))
		return because(COUNT_NOT_HELD, false);
	opened->id = next_id();
	if (packet->fragment != FRAGMENT_NONE || !packet->bare || length == 0 ||
	    length > LIMIT_SYN || !is_found(skb, packet, opened->id))
		return because(COUNT_NOT_HELD, false);
	held = bpf_ringbuf_reserve(&events, sizeof(*held), 0);
	if (!held)
		return because(COUNT_NOT_HELD, false);
	held->event = EVENT_HELD;
	held->id = opened->id;
	held->key = packet->key;
	held->flow = *flow;
	held->length = length;
	__builtin_memset(held->hop, 0, sizeof(held->hop));
	if ((has_mac && bpf_skb_load_bytes(skb, 0, held->hop, sizeof(held->hop))) ||
	    bpf_skb_load_bytes(skb, packet->network, held->syn, length)) {
		bpf_ringbuf_discard(held, 0);
		return because(COUNT_NOT_HELD, false);
	}
	opened->stage = STAGE_HELD;
	bpf_ringbuf_submit(held, 0);
	return true;
}

/* Takes a SYN off its way. Dropped at its interface, its socket would believe in congestion
 * (tcp_transmit_skb() of net/ipv4/tcp_output.c). */
static __always_inline int wait(struct __sk_buff *skb, const struct device *device)
{
	count(COUNT_HELD);
	return steer(skb, device, SLOT_HELD);
}

/* Its program's socket, if that still waits for an answer to this SYN. */
static __always_inline struct opened *held_by(struct bpf_sock *sk, const __u8 asked[4])
{
	struct opened *opened;
	struct tcp_sock *tcp;
	__u32 id;

	if (sk->state != BPF_TCP_SYN_SENT)
		return NULL;
	tcp = bpf_skc_to_tcp_sock(sk);
	opened = tcp ? bpf_sk_storage_get(&sockets, tcp, NULL, 0) : NULL;
	__builtin_memcpy(&id, asked, sizeof(id));
	return opened && opened->stage == STAGE_HELD && opened->id == id ? opened : NULL;
}

/* A checksum that the interface would have completed. */
static __always_inline long complete(struct __sk_buff *skb, const struct packet *packet)
{
	__u32 length = skb->len - packet->transport;
	__u8 segment[60] = {};
	__u16 check;

	if (length < sizeof(struct tcphdr) || length > sizeof(segment) ||
	    bpf_skb_load_bytes(skb, packet->transport, segment, length))
		return -1;
	segment[16] = segment[17] = 0;
	check = fold(bpf_csum_diff(NULL, 0, (__be32 *)segment, sizeof(segment),
				   sum_pseudo_header(packet, IPPROTO_TCP, length) & 0xffffffff));
	return bpf_skb_store_bytes(skb, packet->transport + offsetof(struct tcphdr, check), &check,
				   sizeof(check), 0);
}

/* What programs answer that the process runs. */
enum { RELEASED = 0, RELEASE_GONE, RELEASE_FAILED };

static __always_inline int let_go(struct __sk_buff *skb, const struct packet *packet,
				  const struct releasing *request, const struct device *device,
				  struct opened *opened)
{
	struct ethhdr frame = {.h_proto = request->ethertype};

	switch (request->release) {
	case RELEASE_ALONE:
		opened->verdict.action = ACTION_DIRECT;
		opened->decided = DECIDED_BY_PLUGIN;
		opened->stage = STAGE_ALONE;
		bpf_map_delete_elem(&flows, &packet->key);
		__builtin_memcpy(frame.h_dest, request->hop, ETH_ALEN);
		__builtin_memcpy(frame.h_source, device->mac, ETH_ALEN);
		if (complete(skb, packet) || bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
			return RELEASE_FAILED;
		bpf_clone_redirect(skb, device->ifindex, 0);
		return RELEASED;
	case RELEASE_STEERED:
		opened->stage = STAGE_STEERED;
		count(COUNT_STEERED_SYN);
		if (complete(skb, packet) || bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
			return RELEASE_FAILED;
		skb->mark = settings.mark | request->slot;
		bpf_clone_redirect(skb, settings.lo_ifindex, BPF_F_INGRESS);
		return RELEASED;
	}
	bpf_map_delete_elem(&flows, &packet->key);
	if (reset(skb, packet, device) != TC_ACT_REDIRECT)
		return RELEASE_FAILED;
	bpf_clone_redirect(skb, device->ifindex, BPF_F_INGRESS);
	return RELEASED;
}

/*
 * Run by the process, on a SYN that it holds behind a struct releasing, with the mark that it had:
 * its connection goes on, or does not. RELEASE_GONE: its program does not wait any more.
 */
SEC("tc")
int release(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct releasing request;
	struct device *device;
	struct opened *opened;
	struct bpf_sock *sk;
	int result = RELEASE_GONE;
	__u32 slot;

	if (bpf_skb_load_bytes(skb, 0, &request, sizeof(request)) ||
	    read_sent(skb, ETH_HLEN, &packet) != READ_ALL)
		return RELEASE_FAILED;
	slot = request.slot;
	device = bpf_map_lookup_elem(&devices, &slot);
	if (!device)
		return RELEASE_FAILED;
	sk = sender(skb, &packet.key, packet.ethertype == ETH_P_IPV6);
	if (!sk)
		return RELEASE_GONE;
	opened = held_by(sk, request.id);
	if (opened)
		result = let_go(skb, &packet, &request, device, opened);
	bpf_sk_release(sk);
	return result;
}

/* Whether a packet is a SYN that was held, on its way out: no socket sends it. */
static __always_inline bool is_released(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *sk;
	struct opened *opened;
	struct tcp_sock *tcp;
	bool released;

	if (skb->sk || packet->protocol != IPPROTO_TCP || !is_syn(packet))
		return false;
	sk = sender(skb, &packet->key, packet->ethertype == ETH_P_IPV6);
	if (!sk)
		return false;
	tcp = bpf_skc_to_tcp_sock(sk);
	opened = tcp ? bpf_sk_storage_get(&sockets, tcp, NULL, 0) : NULL;
	released = opened && opened->stage == STAGE_ALONE;
	bpf_sk_release(sk);
	return released;
}

#endif
