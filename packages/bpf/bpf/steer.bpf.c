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

#define TRACE_COUNTERS counters
#define TRACE_REASONS  COUNT_MAX
#include "trace.h"
#include "judge.h"
#include "recall.h"
#include "redirect.h"
#include "whose.h"
#include "reject.h"
#include "hold.h"
#include "alone.h"
#include "owner.h"
#include "leave.h"
#include "loopback.h"

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define SOCK_STREAM 1

/* Notes a packet for the rule that decided it. */
static __always_inline void decided_by(struct __sk_buff *skb, const struct control *state,
				       const struct verdict *verdict, __u32 network)
{
	trace_rule(verdict->rule, verdict->generation);
	count_rule(skb, network, state, verdict->rule, verdict->generation);
}

static __always_inline void log_verdict(struct __sk_buff *skb, const struct packet *packet,
					const struct verdict *verdict, const struct opened *opened)
{
	struct log_entry *entry = bpf_ringbuf_reserve(&rule_log, sizeof(*entry), 0);

	if (!entry) {
		count(COUNT_LOG_LOST);
		return;
	}
	entry->key = packet->key;
	entry->rule = verdict->rule;
	entry->generation = verdict->generation;
	entry->ifindex = skb->ifindex;
	entry->length = skb->len - packet->network;
	entry->protocol = packet->protocol;
	if (opened)
		entry->owner = opened->owner;
	else
		__builtin_memset(&entry->owner, 0, sizeof(entry->owner));
	bpf_ringbuf_submit(entry, 0);
}

/* Does what a verdict says of this packet. */
static __noinline int apply(struct __sk_buff *skb, const struct verdict *verdict,
			    const struct packet *packet, const struct device *device, __u32 slot)
{
	switch (verdict->action) {
	case ACTION_DIRECT:
		return because(COUNT_PASSED_RULE, NEXT);
	case ACTION_DROP:
		return because(COUNT_DROPPED_RULE, TC_ACT_SHOT);
	case ACTION_REJECT:
		return reject(skb, packet, device);
	case ACTION_REDIRECT:
		return redirect(skb, verdict, device);
	}
	count(is_syn(packet) ? COUNT_STEERED_SYN : COUNT_STEERED);
	return steer(skb, device, slot);
}

static __always_inline void note_decision(struct __sk_buff *skb, struct opened *opened,
					  const struct verdict *verdict,
					  const struct packet *packet)
{
	opened->verdict = *verdict;
	opened->network = packet->network;
	opened->ifindex = skb->ifindex;
	opened->decided = DECIDED_BY_RULE;
}

/* Whether the rules are to be asked again about a connection that was decided under older ones. */
static __always_inline bool is_outdated(const struct opened *opened, const struct control *state)
{
	return opened->verdict.generation < state->since &&
	       opened->verdict.action != ACTION_PROXY && opened->decided == DECIDED_BY_RULE;
}

/* Whether a connection would go on where it did not go before. What was refused has no other side.
 */
static __always_inline bool is_elsewhere_now(const struct verdict *before,
					     const struct verdict *now)
{
	if (now->action == ACTION_DIRECT)
		return before->action == ACTION_REDIRECT;
	return now->action != before->action || now->ifindex != before->ifindex ||
	       now->into != before->into;
}

/* Whether a socket that connects may have begun before anybody noted whose it is. Later, it is one
 * whose program has used up what it may keep with a socket (optmem_max; TCP_MD5SIG needs no
 * privilege): to hide, maybe. */
static __always_inline bool may_be_older(void)
{
	return bpf_ktime_get_ns() - settings.since < LIMIT_OPENING * 1000000000ull;
}

/* A packet of which not all is known: what the rules refuse might be it. */
static __always_inline int refuse_unknown(struct __sk_buff *skb, const struct control *state,
					  enum counter reason)
{
	if (is_out_of_scope(skb))
		return because(COUNT_PASSED_SCOPE, NEXT);
	return state->refuses ? because(reason, TC_ACT_SHOT)
			      : because(COUNT_PASSED_UNREADABLE, NEXT);
}

/* What is no connection that was left alone, which most are. */
static __always_inline int decide(struct __sk_buff *skb)
{
	struct bpf_sock *sk = skb->sk ? bpf_sk_fullsock(skb->sk) : NULL;
	bool tcp = sk && sk->type == SOCK_STREAM && sk->protocol == IPPROTO_TCP;
	bool again = false, decided = false, wrapped;
	struct opened *opened = NULL;
	struct packet packet = {};
	struct verdict verdict = {};
	struct control *state;
	struct device *device;
	enum counter reason;
	enum reading reading;
	__u32 *slot, index = skb->ifindex, zero = 0;

	if (is_servers(skb->sk) && !is_tunnels(skb))
		return because(COUNT_PASSED_OLDER, NEXT);
	state = bpf_map_lookup_elem(&control, &zero);
	if (!state)
		return because(COUNT_PASSED_CLOSING, NEXT);
	if (sk)
		opened = bpf_sk_storage_get(&sockets, sk, NULL, 0);
	else if (skb->ingress_ifindex)
		return because(COUNT_PASSED_FORWARDED, NEXT);
	if (sk && !tcp && is_elsewhere(sk))
		return because(COUNT_PASSED_FORWARDED, NEXT);
	if (tcp) {
		if (opened && opened->decided) {
			again = is_outdated(opened, state);
			decided = !again;
		} else {
			/* Accepted sockets never connected; a program that did may carry any mark.
			 */
			if (!opened && (skb->mark & ~MARK_SLOT) == (settings.mark | MARK_REPLY))
				return because(COUNT_DROPPED_STRAY, TC_ACT_SHOT);
			/* Only a socket in SYN_SENT sends a SYN. */
			if (sk->state != BPF_TCP_SYN_SENT && !is_tunnels(skb))
				return because(COUNT_PASSED_OLDER, NEXT);
			if (!opened && is_elsewhere(sk))
				return because(COUNT_PASSED_FORWARDED, NEXT);
		}
	}

	slot = bpf_map_lookup_elem(&slots, &index);
	if (!slot)
		return because(COUNT_DROPPED_DEVICE, TC_ACT_SHOT);
	index = *slot;
	device = bpf_map_lookup_elem(&devices, &index);
	if (!device)
		return because(COUNT_DROPPED_DEVICE, TC_ACT_SHOT);
	if (decided && opened->verdict.action == ACTION_PROXY && opened->ifindex == skb->ifindex) {
		decided_by(skb, state, &opened->verdict, device->has_mac ? ETH_HLEN : 0);
		if (opened->stage == STAGE_HELD)
			return wait(skb, device);
		count(COUNT_STEERED);
		return steer(skb, device, index);
	}

	reading = read_sent(skb, device->has_mac ? ETH_HLEN : 0, &packet);
	if (reading == READ_NOT_IP)
		return because(COUNT_PASSED_NOT_IP, NEXT);
	if (reading == READ_BROKEN)
		return refuse_unknown(skb, state, COUNT_DROPPED_UNREADABLE);
	wrapped = sk && is_wrapped(sk, &packet);
	if (wrapped)
		tcp = decided = again = false;
	if (decided) {
		if (opened->decided == DECIDED_TO_PASS)
			return because(COUNT_PASSED_DECIDED, NEXT);
		verdict = opened->verdict;
		/* Its route has changed meanwhile. */
		if (verdict.action == ACTION_PROXY && opened->stage == STAGE_HELD)
			return wait(skb, device);
		/* It was translated at the VLAN's own interface; or nobody looks there any more. */
		if (verdict.action == ACTION_PROXY && packet.tagged)
			return is_as_sent(sk, &packet) ? because(COUNT_DROPPED_STRAY, TC_ACT_SHOT)
						       : because(COUNT_PASSED_VLAN, NEXT);
		decided_by(skb, state, &verdict, packet.network);
		return apply(skb, &verdict, &packet, device, index);
	}
	if (!tcp && belongs_to_us(skb, &packet)) {
		count(COUNT_STEERED);
		return steer(skb, device, index);
	}
	if (!tcp && is_released(skb, &packet))
		return because(COUNT_RELEASED, NEXT);
	if (!tcp && is_kernels_own(&packet, sk))
		return because(COUNT_PASSED_NO_SOCKET, NEXT);
	if (tcp && !opened && !may_be_older()) {
		if (is_out_of_scope(skb))
			return because(COUNT_PASSED_SCOPE, NEXT);
		return because(COUNT_DROPPED_UNKEPT, TC_ACT_SHOT);
	}
	/* It began to connect before we looked. */
	if (tcp && !opened) {
		opened = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
		if (opened)
			opened->owner.uid = bpf_get_socket_uid(skb);
	}

	if (packet.fragment == FRAGMENT_LATER) {
		/* Another program's may have the number of one that the rules know. */
		if (is_out_of_scope(skb))
			return because(COUNT_PASSED_SCOPE, NEXT);
		if (!follow_fragment(&packet, &verdict, false))
			return refuse_unknown(skb, state, COUNT_DROPPED_FRAGMENT);
	} else {
		if (!judge(skb, &packet, opened, &verdict, &reason)) {
			if (tcp && opened) {
				note_decision(skb, opened, &verdict, &packet);
				opened->decided = DECIDED_TO_PASS;
			}
			return because(reason, NEXT);
		}
		/* Maybe it is the tunnel that they redirect to. */
		if (wrapped && verdict.action == ACTION_REDIRECT)
			verdict.action = ACTION_DIRECT;
		if (packet.fragment == FRAGMENT_FIRST)
			follow_fragment(&packet, &verdict, true);
	}
	if (verdict.action == ACTION_PROXY) {
		reason = can_proxy(&packet, sk, state);
		if (reason != COUNT_STEERED_SYN) {
			/* A connection that was left alone under older rules cannot be moved. */
			if (again)
				return reset(skb, &packet, device);
			verdict.action = ACTION_DIRECT;
			decided_by(skb, state, &verdict, packet.network);
			if (tcp && opened)
				note_decision(skb, opened, &verdict, &packet);
			return because(reason, NEXT);
		}
		if (opened && recall(&packet.key, opened->owner.uid, state->remembers, &verdict))
			count(COUNT_REMEMBERED);
	}
	if (tcp && !opened && verdict.action != ACTION_DIRECT)
		return because(COUNT_DROPPED_UNKEPT, TC_ACT_SHOT);
	decided_by(skb, state, &verdict, packet.network);
	if (verdict.log && packet.fragment != FRAGMENT_LATER)
		log_verdict(skb, &packet, &verdict, opened);
	if (again)
		again = opened && is_elsewhere_now(&opened->verdict, &verdict);
	if (tcp && opened)
		note_decision(skb, opened, &verdict, &packet);
	if (again)
		return reset(skb, &packet, device);
	if (verdict.action == ACTION_PROXY && opened) {
		struct flow flow = {
		    .owner = opened->owner,
		    .slot = index,
		    .rule = verdict.rule,
		    .generation = verdict.generation,
		    .bound = tcp && sk->bound_dev_if,
		    .mark = skb->mark,
		    .dscp = packet.dscp,
		};

		bpf_map_update_elem(&flows, &packet.key, &flow, BPF_ANY);
		if (tcp && hold(skb, &packet, &flow, opened, device->has_mac))
			return wait(skb, device);
	}
	return apply(skb, &verdict, &packet, device, index);
}

/* Lets the packets of a connection pass that was left alone: one look at the socket. */
static __always_inline bool passes(struct __sk_buff *skb)
{
	struct opened *opened;
	struct control *state;
	__u32 zero = 0;

	if (!skb->sk)
		return false;
	opened = bpf_sk_storage_get(&sockets, skb->sk, NULL, 0);
	state = bpf_map_lookup_elem(&control, &zero);
	if (!opened || !opened->decided || opened->ifindex != skb->ifindex || !state ||
	    is_outdated(opened, state) ||
	    (opened->decided != DECIDED_TO_PASS && opened->verdict.action != ACTION_DIRECT))
		return false;
	decided_by(skb, state, &opened->verdict, opened->network);
	return true;
}

/*
 * Egress of every intercepted interface. The decision about a connection is made on its SYN and
 * kept with its socket, so that a rule change, a fragment without ports or a forged mark cannot
 * divert it later. What is no TCP connection is decided packet by packet.
 *
 * NEXT: not for us. TC_ACT_REDIRECT: into lo or elsewhere. TC_ACT_SHOT: the rules say so, or it
 * must not leave.
 */
SEC("tc")
int wan_egress(struct __sk_buff *skb)
{
	bool traced = trace_begin(skb);

	return trace_end(skb, HOOK_WAN_EGRESS, traced,
			 passes(skb) ? because(COUNT_PASSED_DECIDED, NEXT) : decide(skb));
}
