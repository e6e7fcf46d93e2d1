/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A pair ends before its time. Run by the process. */
#ifndef TPROXY_SEVER_H
#define TPROXY_SEVER_H

#include "ends.h"
#include "forge.h"
#include "settle.h"

/*
 * Run by the process, with a pair and its serial in cb, on a frame as long as a segment without
 * payload: resets both ends. The program's socket gets a segment that it has had, which it answers
 * with an ACK that has the right numbers and takes the right way; that ACK becomes the upstream's
 * reset. Then it gets its own.
 */
SEC("tc")
int sever(struct __sk_buff *skb)
{
	__u32 index = skb->cb[0];
	struct pair *pair = bpf_map_lookup_elem(&pairs, &index);
	struct tcphdr header = {.ack = 1};
	struct device *device;
	struct tcp_sock *tcp;
	struct bpf_sock *client;
	__u32 ifindex, next, acked;
	__u8 mac[ETH_ALEN] = {};

	if (!pair || pair->serial != skb->cb[1])
		return DONE;
	bpf_spin_lock(&pair->lock);
	pair->state = PAIR_SEVERED;
	bpf_spin_unlock(&pair->lock);
	ifindex = pair->client_ifindex;
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	client = receiver(skb, &pair->to[WAY_DOWN], pair->v6);
	if (!client)
		return DONE;
	tcp = bpf_skc_to_tcp_sock(client);
	if (!tcp || !device || !is_of(client, pair)) {
		bpf_sk_release(client);
		return DONE;
	}
	next = tcp->rcv_nxt;
	acked = tcp->snd_una;
	bpf_sk_release(client);
	__builtin_memcpy(mac, device->mac, sizeof(mac));
	header.ack_seq = bpf_htonl(acked);
	header.seq = bpf_htonl(next - 1);
	if (write_segment(skb, &pair->to[WAY_DOWN], pair->v6, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	header.rst = 1;
	header.seq = bpf_htonl(next);
	if (write_segment(skb, &pair->to[WAY_DOWN], pair->v6, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	return DONE;
}

#endif
