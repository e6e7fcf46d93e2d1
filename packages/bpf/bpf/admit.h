/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* A program speaks when it is known who carries what it says. */
#ifndef TPROXY_ADMIT_H
#define TPROXY_ADMIT_H

#include "ends.h"
#include "forge.h"
#include "kernel.h"
#include "segment.h"
#include "settle.h"

/*
 * What a program said before, our socket would acknowledge at once, and its kernel would plan by a
 * round trip that is over once the kernel carries the connection (see misled() in arm.h). So the
 * window in our SYN-ACK is closed. If nobody opens it, the program's kernel asks after its first
 * timeout, of 200 ms, and our socket answers with what it takes (RFC 9293, 3.8.6.1).
 */
static __noinline void close_window(struct __sk_buff *skb)
{
	__be16 window, closed = 0;
	__u32 transport = ETH_HLEN + sizeof(struct ipv6hdr), at;
	__u8 first;

	if ((skb->mark & ~MARK_SLOT) != (settings.mark | MARK_REPLY))
		return;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		if (bpf_skb_load_bytes(skb, ETH_HLEN, &first, sizeof(first)))
			return;
		transport = ETH_HLEN + (first & 0x0f) * 4;
	}
	at = transport + offsetof(struct tcphdr, window);
	if (bpf_skb_load_bytes(skb, at, &window, sizeof(window)) ||
	    bpf_l4_csum_replace(skb, transport + offsetof(struct tcphdr, check), window, closed,
				sizeof(window)) ||
	    bpf_skb_store_bytes(skb, at, &closed, sizeof(closed), 0))
		return;
	because(SPLICE_WINDOW_CLOSED, 0);
}

/*
 * Whether this is what the kernel answers to a program's probe of that window, where the
 * handshake's last ACK has not come to us: it would open the window, and by its timestamp, which is
 * of no SYN-ACK, all that the program says then would be refused (tsecr_reject in tcp_check_req()
 * of net/ipv4/tcp_minisocks.c, since 6.15). The next SYN-ACK has the program repeat its ACK.
 */
static __noinline bool is_premature(struct __sk_buff *skb)
{
	struct flow_key key = {};
	struct segment segment;
	struct bpf_sock *ours;
	bool premature;

	if ((skb->mark & ~MARK_SLOT) != (settings.mark | MARK_REPLY) ||
	    !read_segment(skb, ETH_HLEN, &segment, &key))
		return false;
	ours = sender(skb, &key, skb->protocol == bpf_htons(ETH_P_IPV6));
	if (!ours)
		return false;
	premature = ours->state == BPF_TCP_NEW_SYN_RECV;
	bpf_sk_release(ours);
	return premature;
}

/* Up to where a program may send, in its own numbers: as far as who takes it lets it. */
static __always_inline __u32 edge(const struct flow_key *client, const struct tcp_sock *ours)
{
	struct leg *leg = bpf_map_lookup_elem(&legs, client);
	__u32 index = leg ? leg->pair : 0;
	struct pair *pair = leg ? bpf_map_lookup_elem(&pairs, &index) : NULL;

	if (pair && pair->serial == leg->serial &&
	    (pair->state == PAIR_CARRIED || pair->state == PAIR_SPLICED))
		return pair->ways[WAY_UP].edge - pair->ways[WAY_UP].delta;
	return ours->rcv_nxt + ours->rcv_wnd;
}

/*
 * Run by the process, on a frame that holds a struct admission and has room for a segment, when it
 * is known who carries a connection: lets its program speak.
 */
SEC("tc")
int admit(struct __sk_buff *skb)
{
	struct tcphdr header = {.ack = 1};
	struct admission request;
	struct flow_key back;
	struct device *device;
	struct tcp_sock *tcp;
	struct bpf_sock *program, *ours;
	__u32 ifindex, next, end, window;
	__u8 mac[ETH_ALEN] = {};
	bool v6 = skb->protocol == bpf_htons(ETH_P_IPV6);

	if (bpf_skb_load_bytes(skb, FRAME, &request, sizeof(request)))
		return FAILED;
	ifindex = request.ifindex;
	device = bpf_map_lookup_elem(&hooked, &ifindex);
	/* Where a firewall on this host translates them, nobody has these addresses. */
	program = sender(skb, &request.client, v6);
	if (!program)
		return DONE;
	bpf_sk_release(program);
	ours = receiver(skb, &request.client, v6);
	if (!ours)
		return DONE;
	tcp = bpf_skc_to_tcp_sock(ours);
	if (!tcp || !device) {
		bpf_sk_release(ours);
		return DONE;
	}
	next = tcp->rcv_nxt;
	end = edge(&request.client, tcp);
	window = after(end, next) ? end - next : 0;
	window >>= BPF_CORE_READ_BITFIELD(tcp, rx_opt.rcv_wscale);
	header.window = bpf_htons(window < 0xffff ? window : 0xffff);
	header.ack_seq = bpf_htonl(next);
	header.seq = bpf_htonl(tcp->snd_nxt);
	bpf_sk_release(ours);
	__builtin_memcpy(mac, device->mac, sizeof(mac));
	reverse(&back, &request.client);
	if (write_segment(skb, &back, v6, mac, &header))
		return FAILED;
	bpf_clone_redirect(skb, ifindex, BPF_F_INGRESS);
	return DONE;
}

#endif
