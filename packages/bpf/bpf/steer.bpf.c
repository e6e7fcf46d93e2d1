// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Steers new TCP connections of local programs to the transparent listener of a process, and the
 * listener's replies back:
 *
 *   program ── wan_egress ──► lo_ingress ──► listener or accepted socket
 *   program ◄── wan ingress ◄── lo_egress ◄── listener or accepted socket
 */
#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "contract.h"
#include "maps.h"
#include "packet.h"
#include "owner.h"
#include "rules.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

/* tcx: let the next program on the hook see the packet (since 6.6; TC_ACT_UNSPEC before). */
#define NEXT TC_ACT_UNSPEC

#define SOCK_STREAM 1

/* Sends a packet into lo, marked so that the routing rule delivers it here and lo_ingress knows it.
 */
static __always_inline int steer(struct __sk_buff *skb, const struct device *device, __u32 slot)
{
	/* lo's own address is zero, and only a frame to it is for this host. */
	struct ethhdr frame = {.h_proto = skb->protocol};

	if (!device->has_mac && bpf_skb_change_head(skb, ETH_HLEN, 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	if (bpf_skb_store_bytes(skb, 0, &frame, sizeof(frame), 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	skb->mark = settings.mark | slot;
	return bpf_redirect(settings.lo_ifindex, BPF_F_INGRESS);
}

/* fe80::/10, ff00::/8, 169.254.0.0/16, 224.0.0.0/4: meant for the link, and ambiguous without its
 * interface. */
static __always_inline bool is_link_local(const struct packet *packet)
{
	const __u8 *address = packet->key.destination;

	if (packet->ethertype == ETH_P_IP)
		return (address[12] == 169 && address[13] == 254) || (address[12] & 0xf0) == 224;
	return (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) || address[0] == 0xff;
}

/* Decides about the first packet of a connection; opened is NULL for a raw socket's. */
static __always_inline enum counter decide(struct __sk_buff *skb, const struct packet *packet,
					   __u32 slot, const struct opened *opened, bool bound)
{
	__u32 zero = 0;
	struct control *state = bpf_map_lookup_elem(&control, &zero);
	struct ruling ruling = {};
	struct flow flow = {.slot = slot};

	if (!state || state->closing)
		return COUNT_PASSED_CLOSING;
	if (settings.scoped && bpf_skb_under_cgroup(skb, &scope, 0) != 1)
		return COUNT_PASSED_SCOPE;
	if (opened && opened->exempt)
		return COUNT_PASSED_EXEMPT;
	if (is_link_local(packet))
		return COUNT_PASSED_LINK_LOCAL;
	ask_rules(&packet->key, state->rules, &ruling);
	if (ruling.action == ACTION_DIRECT)
		return COUNT_PASSED_RULE;
	if (ruling.action == ACTION_DROP)
		return COUNT_DROPPED_RULE;
	if (opened) {
		flow.owner = opened->owner;
		flow.rule = ruling.rule;
		flow.bound = bound;
		bpf_map_update_elem(&flows, &packet->key, &flow, BPF_ANY);
	}
	return COUNT_STEERED_SYN;
}

/*
 * What the kernel itself sends for a socket that is gone (an ACK from TIME_WAIT, an RST), or a raw
 * socket: it belongs to an intercepted connection if it is addressed to one of our accepted
 * sockets. No other socket here has a foreign address as its own.
 */
static __always_inline bool belongs_to_us(struct __sk_buff *skb, const struct packet *packet)
{
	struct bpf_sock *receiver;
	bool accepted;

	if (packet->flags & TCP_SYN)
		return false;
	receiver = find_receiver(skb, packet);
	if (!receiver)
		return false;
	accepted = receiver->state != BPF_TCP_LISTEN;
	bpf_sk_release(receiver);
	return accepted;
}

/*
 * Egress of every intercepted interface. The decision about a connection is made on its SYN and
 * kept with its socket, so that a rule change, a fragment without ports or a forged mark cannot
 * divert it later.
 *
 * NEXT: not for us. TC_ACT_REDIRECT: into lo. TC_ACT_SHOT: a rule says drop, or it must not leave.
 */
SEC("tc")
int wan_egress(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	bool tcp = sk && sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP;
	struct opened *opened = NULL;
	struct packet packet = {};
	struct device *device;
	enum counter outcome;
	__u32 *slot, index = skb->ifindex;

	/* The fast path: one look at the socket. */
	if (tcp) {
		opened = bpf_sk_storage_get(&sockets, sk, NULL, 0);
		if (opened && opened->decision == PASS)
			return because(COUNT_PASSED_DECIDED, NEXT);
		if (opened && opened->decision == DROP)
			return because(COUNT_DROPPED_RULE, TC_ACT_SHOT);
		/* Accepted sockets never connected; a program that did may carry any mark. */
		if (!opened && (skb->mark & ~MARK_SLOT) == (settings.mark | MARK_REPLY))
			return because(COUNT_DROPPED_STRAY, TC_ACT_SHOT);
		/* Only a socket in SYN_SENT sends a SYN. */
		if (sk->state != BPF_TCP_SYN_SENT && !(opened && opened->decision == STEER))
			return because(COUNT_PASSED_OLDER, NEXT);
	} else if (skb->ingress_ifindex) {
		return because(COUNT_PASSED_FORWARDED, NEXT);
	}
	if (skb->vlan_present)
		return because(COUNT_PASSED_VLAN, NEXT);

	slot = bpf_map_lookup_elem(&slots, &index);
	if (!slot)
		return because(COUNT_DROPPED_DEVICE, TC_ACT_SHOT);
	index = *slot;
	device = bpf_map_lookup_elem(&devices, &index);
	if (!device)
		return because(COUNT_DROPPED_DEVICE, TC_ACT_SHOT);
	if (opened && opened->decision == STEER) {
		count(COUNT_STEERED);
		return steer(skb, device, index);
	}

	if (!parse(skb, device->has_mac ? ETH_HLEN : 0, &packet))
		return because(COUNT_PASSED_NOT_TCP, NEXT);
	if (!is_syn(&packet)) {
		if (!belongs_to_us(skb, &packet))
			return because(COUNT_PASSED_NO_SOCKET, NEXT);
		count(COUNT_STEERED);
		return steer(skb, device, index);
	}

	outcome = decide(skb, &packet, index, opened, tcp && sk->bound_dev_if);
	count(outcome);
	if (opened)
		opened->decision = outcome == COUNT_STEERED_SYN	   ? STEER
				   : outcome == COUNT_DROPPED_RULE ? DROP
								   : PASS;
	if (outcome == COUNT_STEERED_SYN)
		return steer(skb, device, index);
	return outcome == COUNT_DROPPED_RULE ? TC_ACT_SHOT : NEXT;
}

/* The listener of a slot for a family, to be released. */
static __always_inline struct bpf_sock *find_listener(__u32 slot, bool v6)
{
	__u32 key = slot * 2 + v6;

	return bpf_map_lookup_elem(&listeners, &key);
}

/*
 * Ingress of lo: hands what was steered to the listener, unless the stack finds its socket by
 * itself: an accepted one, a half-open one, or one in TIME_WAIT, where the kernel decides whether
 * the SYN may reuse it (RFC 6191) and then asks listener_lookup. An ACK without socket goes to the
 * listener too: it may answer a SYN cookie.
 *
 * NEXT: not ours, or assigned. TC_ACT_SHOT: there is nobody to take it.
 */
SEC("tc")
int lo_ingress(struct __sk_buff *skb)
{
	struct packet packet = {};
	struct bpf_sock *sk;
	long error;

	if ((skb->mark & ~MARK_SLOT) != settings.mark)
		return NEXT;
	/* A later fragment: the stack puts it together with the first. */
	if (!parse(skb, ETH_HLEN, &packet))
		return because(COUNT_DROPPED_MALFORMED, NEXT);
	sk = find_receiver(skb, &packet);
	if (sk) {
		bool established = sk->state != BPF_TCP_LISTEN;

		bpf_sk_release(sk);
		if (established)
			return because(COUNT_ESTABLISHED, NEXT);
	}
	sk = find_listener(skb->mark & MARK_SLOT, packet.ethertype == ETH_P_IPV6);
	if (!sk)
		return because(COUNT_DROPPED_NO_LISTENER, TC_ACT_SHOT);
	error = bpf_sk_assign(skb, sk, 0);
	bpf_sk_release(sk);
	if (error)
		return because(COUNT_DROPPED_ASSIGN, TC_ACT_SHOT);
	return because(COUNT_ASSIGNED, NEXT);
}

/*
 * Listener lookup of our network namespace, reached by a steered SYN only where its 4-tuple is
 * still in TIME_WAIT on our side: without an answer the program would wait for a retransmission
 * that is not answered either.
 *
 * SK_PASS: with our listener assigned, or the ordinary lookup.
 */
SEC("sk_lookup")
int listener_lookup(struct bpf_sk_lookup *ctx)
{
	struct flow_key key = {};
	struct bpf_sock *sk;
	struct flow *flow;
	bool v6 = ctx->family == 10; /* AF_INET6 */

	if (ctx->ingress_ifindex != settings.lo_ifindex || ctx->protocol != IPPROTO_TCP)
		return SK_PASS;
	if (v6) {
		__u32 source[4] = {ctx->remote_ip6[0], ctx->remote_ip6[1], ctx->remote_ip6[2],
				   ctx->remote_ip6[3]};
		__u32 destination[4] = {ctx->local_ip6[0], ctx->local_ip6[1], ctx->local_ip6[2],
					ctx->local_ip6[3]};

		__builtin_memcpy(key.source, source, 16);
		__builtin_memcpy(key.destination, destination, 16);
	} else {
		map_v4(key.source, ctx->remote_ip4);
		map_v4(key.destination, ctx->local_ip4);
	}
	key.source_port = ctx->remote_port;
	key.destination_port = bpf_htons(ctx->local_port);
	flow = bpf_map_lookup_elem(&flows, &key);
	if (!flow)
		return SK_PASS;
	sk = find_listener(flow->slot, v6);
	if (!sk)
		return SK_PASS;
	if (!bpf_sk_assign(ctx, sk, 0))
		count(COUNT_REUSED);
	bpf_sk_release(sk);
	return SK_PASS;
}

/* Whether a packet comes from 127.0.0.0/8 or ::1. */
static __always_inline bool is_from_loopback(struct __sk_buff *skb)
{
	__u32 address[4] = {};

	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct iphdr, saddr), address, 4);
		return (address[0] & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000);
	}
	bpf_skb_load_bytes(skb, ETH_HLEN + offsetof(struct ipv6hdr, saddr), address, 16);
	return !address[0] && !address[1] && !address[2] && address[3] == bpf_htonl(1);
}

/*
 * Egress of lo: takes the replies of our sockets to the interface the connection left by, where the
 * program's socket, even one bound to that interface, expects them.
 *
 * NEXT: not ours. TC_ACT_REDIRECT: into the interface. TC_ACT_SHOT: it is gone.
 */
SEC("tc")
int lo_egress(struct __sk_buff *skb)
{
	struct device *device;
	__u32 slot = skb->mark & MARK_SLOT;

	if ((skb->mark & ~MARK_SLOT) != (settings.mark | MARK_REPLY))
		return NEXT;
	if (is_from_loopback(skb))
		return because(COUNT_PASSED_LOOPBACK, NEXT);
	device = bpf_map_lookup_elem(&devices, &slot);
	if (!device || !device->ifindex)
		return because(COUNT_DROPPED_RETURN, TC_ACT_SHOT);
	if (device->has_mac && bpf_skb_store_bytes(skb, 0, device->mac, ETH_ALEN, 0))
		return because(COUNT_DROPPED_REWRITE, TC_ACT_SHOT);
	/* The program's host sees no mark on packets from the network either. */
	skb->mark = 0;
	count(COUNT_RETURNED);
	return bpf_redirect(device->ifindex, BPF_F_INGRESS);
}
