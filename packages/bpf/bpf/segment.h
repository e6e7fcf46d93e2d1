/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* TCP segments: read, and made those of another connection. */
#ifndef TPROXY_SEGMENT_H
#define TPROXY_SEGMENT_H

#include "packet.h"
#include "pair.h"

struct segment {
	__u32 network; /* where the IP header begins */
	__u32 transport;
	__u32 seq;
	__u32 end; /* seq and all that it occupies: payload, SYN and FIN */
	__u32 ack;
	__u32 payload;
	__u16 window;
	__u8 flags;
	__u8 words; /* of the TCP header */
};

/* Next header, length, and the option. */
#define JUMBO_OPTIONS 8

#define TCP_MOVING (TCP_FIN | TCP_SYN | TCP_RST)

/* With all options (RFC 791, 3.1); what comes behind an IPv6 header may be as long. */
#define IP_HEADER_MAX 60

static __always_inline bool has_options(struct __sk_buff *skb, const struct iphdr *ip,
					const void *end)
{
	return skb->protocol == bpf_htons(ETH_P_IP) && (const void *)(ip + 1) <= end &&
	       ip->ihl != 5;
}

/* Reads a segment, and its addresses into key unless that is NULL. False: not TCP in one piece. */
static __always_inline bool read_segment(struct __sk_buff *skb, __u32 network,
					 struct segment *segment, struct flow_key *key)
{
	void *data, *end;
	struct iphdr *v4;
	struct ipv6hdr *v6;
	struct tcphdr *tcp;
	__u32 length;
	__u8 next;

	if (skb->vlan_present)
		return false;
	data = (void *)(long)skb->data;
	end = (void *)(long)skb->data_end;
	/* What is not in the linear part yet, where the headers of what this host sends end: a byte
	 * more costs another allocation and copy of all of it. */
	length = skb->protocol == bpf_htons(ETH_P_IP) ? sizeof(*v4) : sizeof(*v6);
	if (data + network + length + sizeof(*tcp) > end || has_options(skb, data + network, end)) {
		length = network + IP_HEADER_MAX + sizeof(*tcp);
		if (bpf_skb_pull_data(skb, length < skb->len ? length : skb->len))
			return false;
		data = (void *)(long)skb->data;
		end = (void *)(long)skb->data_end;
	}
	segment->network = network;
	if (skb->protocol == bpf_htons(ETH_P_IP)) {
		v4 = data + network;
		if ((void *)(v4 + 1) > end || v4->protocol != IPPROTO_TCP || v4->ihl < 5 ||
		    v4->frag_off & bpf_htons(IP_FRAGMENT_OFFSET | IP_MORE_FRAGMENTS))
			return false;
		segment->transport = network + v4->ihl * 4;
		length = bpf_ntohs(v4->tot_len);
		/* A packet of more than 64 KB says 0 (BIG TCP). */
		length = length ? length - v4->ihl * 4 : skb->len - segment->transport;
		if (key) {
			map_v4(key->source, v4->saddr);
			map_v4(key->destination, v4->daddr);
		}
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		v6 = data + network;
		if ((void *)(v6 + 1) > end)
			return false;
		next = v6->nexthdr;
		segment->transport = network + sizeof(*v6);
		/* What is longer than 64 KB says so in a hop-by-hop option (RFC 2675); lo has such
		 * packets. */
		if (next == IPPROTO_HOPOPTS) {
			__u8 *options = (__u8 *)(v6 + 1);

			if ((void *)(options + JUMBO_OPTIONS) > end || options[1])
				return false;
			next = options[0];
			segment->transport += JUMBO_OPTIONS;
		}
		if (next != IPPROTO_TCP)
			return false;
		length =
		    v6->payload_len ? bpf_ntohs(v6->payload_len) : skb->len - segment->transport;
		if (key) {
			__builtin_memcpy(key->source, &v6->saddr, 16);
			__builtin_memcpy(key->destination, &v6->daddr, 16);
		}
	} else {
		return false;
	}
	if (segment->transport > network + IP_HEADER_MAX)
		return false;
	tcp = data + segment->transport;
	if ((void *)(tcp + 1) > end)
		return false;
	if (key) {
		key->source_port = tcp->source;
		key->destination_port = tcp->dest;
	}
	segment->words = tcp->doff;
	segment->flags = ((__u8 *)tcp)[13];
	segment->seq = bpf_ntohl(tcp->seq);
	segment->ack = bpf_ntohl(tcp->ack_seq);
	segment->window = bpf_ntohs(tcp->window);
	if (segment->words < 5 || length < segment->words * 4)
		return false;
	segment->payload = length - segment->words * 4;
	segment->end = segment->seq + segment->payload + !!(segment->flags & TCP_SYN) +
		       !!(segment->flags & TCP_FIN);
	return true;
}

/* The words of a TCP header with nothing but timestamps behind it, as Linux lays them out. */
#define NOP_NOP_TIMESTAMPS 0x0101080a
enum tcp_word {
	WORD_PORTS,
	WORD_SEQ,
	WORD_ACK,
	WORD_FLAGS,
	WORD_CHECK,
	WORD_NOPS,
	WORD_VALUE,
	WORD_ECHO
};
#define PLAIN_WORDS 8

enum tcp_option { OPTION_END = 0, OPTION_NOP = 1, OPTION_SACK = 5, OPTION_TIMESTAMPS = 8 };

/* Subtracts from, or adds to, a number in the header; notes what that does to the checksum. Global,
 * as what calls it: the verifier would follow its ways through each of ten. */
__noinline bool shift_number(struct __sk_buff *skb, __u32 at, __u32 delta, __s64 *sum)
{
	__be32 old, new;

	if (!sum || bpf_skb_load_bytes(skb, at, &old, 4))
		return false;
	new = bpf_htonl(bpf_ntohl(old) + delta);
	/* A number that begins at an odd byte counts with its bytes swapped. */
	if (at & 1) {
		__u32 before = __builtin_bswap32(old), after_ = __builtin_bswap32(new);

		before = before << 16 | before >> 16;
		after_ = after_ << 16 | after_ >> 16;
		*sum = bpf_csum_diff(&before, 4, &after_, 4, *sum);
	} else {
		*sum = bpf_csum_diff(&old, 4, &new, 4, *sum);
	}
	return !bpf_skb_store_bytes(skb, at, &new, 4, 0);
}

struct options {
	struct __sk_buff *skb;
	__u32 at;
	__u32 end;
	__u32 value_delta;
	__u32 echo_delta;
	__u32 sack_delta;
	__s64 sum;
	__u32 failed;
};

static long shift_option(__u32 index, struct options *options)
{
	__u8 kind[2] = {};
	__u32 at = options->at;

	if (at >= options->end || bpf_skb_load_bytes(options->skb, at, kind, 1) || !kind[0])
		return 1;
	if (kind[0] == OPTION_NOP) {
		options->at++;
		return 0;
	}
	if (bpf_skb_load_bytes(options->skb, at, kind, 2) || kind[1] < 2 ||
	    at + kind[1] > options->end)
		return 1;
	if (kind[0] == OPTION_TIMESTAMPS && kind[1] == 10) {
		if (!shift_number(options->skb, at + 2, options->value_delta, &options->sum) ||
		    !shift_number(options->skb, at + 6, options->echo_delta, &options->sum))
			options->failed = 1;
	} else if (kind[0] == OPTION_SACK) {
		/* Four blocks of two numbers are as many as fit. */
		for (__u32 number = 0; number < 8; number++) {
			if (2 + number * 4 >= kind[1])
				break;
			if (!shift_number(options->skb, at + 2 + number * 4, options->sack_delta,
					  &options->sum)) {
				options->failed = 1;
				break;
			}
		}
	}
	options->at = at + kind[1];
	return 0;
}

/* Timestamps and the blocks of selective acknowledgements, wherever they stand among the options.
 */
__noinline __s64 shift_options(struct __sk_buff *skb, const struct segment *segment,
			       const struct way *this, const struct way *back)
{
	struct options options = {.skb = skb};

	if (!segment || !this || !back)
		return -1;
	options.at = segment->transport + 20;
	options.end = segment->transport + segment->words * 4;
	options.value_delta = this->clock_delta;
	options.echo_delta = -back->clock_delta;
	options.sack_delta = -back->delta;
	bpf_loop(40, shift_option, &options, 0);
	return options.failed ? -1 : options.sum;
}

/*
 * What the program got from our socket it got before the upstream's clock was known. Nobody may
 * echo less than was ever said: who still waits for the end of the handshake takes no such segment
 * (since Linux 6.15, tcp_check_req() of net/ipv4/tcp_minisocks.c).
 */
static __always_inline __u32 echo(const struct way *back, __u32 timestamp)
{
	timestamp -= back->clock_delta;
	return back->unheard && after(back->clock_first, timestamp) ? back->clock_first : timestamp;
}

/* BPF_F_IPV6, which older headers do not have. */
#define CSUM_IPV6 (1 << 7)

/* What is written in one piece, for each helper that is called costs: the end of an IP header, and
 * a TCP header without the options that are rare. */
struct headers {
	union {
		struct {
			__be32 before[5];
			__u8 ttl, protocol;
			__u16 check;
			__be32 v4[2];
		};
		__be32 v6[8];
	};
	__be32 tcp[PLAIN_WORDS];
};

#define V4_TAIL (sizeof(struct iphdr) - offsetof(struct iphdr, ttl))
#define V6_TAIL (sizeof(struct ipv6hdr) - offsetof(struct ipv6hdr, saddr))

/* What this host sends can be looked at in place. */
static __always_inline bool read_words(struct __sk_buff *skb, __u32 at, __be32 *to, __u32 words)
{
	const __be32 *from;

	/* Or the compiler leaves out the mask, which it knows to change nothing and an older
	 * verifier does not; or adds it twice, and the verifier does not see that both are one. */
	barrier_var(at);
	from = (void *)(long)skb->data + (at & 0x7f);
	barrier_var(from);
	if ((const void *)(from + words) > (void *)(long)skb->data_end)
		return !bpf_skb_load_bytes(skb, at, to, words * 4);
	for (__u32 word = 0; word < words; word++)
		to[word] = from[word];
	return true;
}

/* Notes what that does to a checksum (RFC 1624), in 64 bits. */
static __always_inline void replace(__be32 *word, __be32 value, __u64 *sum)
{
	*sum += (__u64)(__u32) ~*word + value;
	*word = value;
}

/* Carries come in again at the other end, in 32 bits as in 16 (RFC 1071, 2). */
static __always_inline __u32 narrow(__u64 sum)
{
	sum = (__u32)sum + (sum >> 32);
	return (__u32)sum + (sum >> 32);
}

/* Makes the headers of a segment of one connection those of the other. Not 0: it is spoilt. */
static __always_inline long translate(struct __sk_buff *skb, const struct pair *pair, __u32 index,
				      const struct segment *segment)
{
	const struct way *this = &pair->ways[index & 1], *back = &pair->ways[!(index & 1)];
	const struct flow_key *to = &pair->to[index & 1];
	__u32 at = segment->transport, check = at + offsetof(struct tcphdr, check);
	__u32 length = WORD_NOPS * 4, network = segment->network, window;
	bool plain = segment->words == PLAIN_WORDS;
	struct headers headers = {};
	__be32 *words = headers.tcp;
	__u64 sum = 0, address = 0;
	long failed;

	if (at > ETH_HLEN + IP_HEADER_MAX || !(plain ? read_words(skb, at, words, PLAIN_WORDS)
						     : read_words(skb, at, words, WORD_NOPS)))
		return -1;
	if (plain && words[WORD_NOPS] == bpf_htonl(NOP_NOP_TIMESTAMPS)) {
		replace(&words[WORD_VALUE],
			bpf_htonl(bpf_ntohl(words[WORD_VALUE]) + this->clock_delta), &sum);
		replace(&words[WORD_ECHO], bpf_htonl(echo(back, bpf_ntohl(words[WORD_ECHO]))),
			&sum);
		length = sizeof(headers.tcp);
	} else if (segment->words > WORD_NOPS) {
		__s64 options = shift_options(skb, segment, this, back);

		if (options < 0)
			return -1;
		sum = (__u32)options;
	}
	replace(&words[WORD_PORTS], (__u32)to->destination_port << 16 | to->source_port, &sum);
	replace(&words[WORD_SEQ], bpf_htonl(segment->seq + this->delta), &sum);
	if (segment->flags & TCP_ACK)
		replace(&words[WORD_ACK], bpf_htonl(segment->ack - back->delta), &sum);
	/* This end announces how much the way back may bring. */
	window = (__u32)segment->window << back->grow >> back->shrink;
	if (window > 0xffff)
		window = 0xffff;
	replace(&words[WORD_FLAGS], (words[WORD_FLAGS] & bpf_htonl(0xffff0000)) | bpf_htonl(window),
		&sum);

	if (pair->same_addresses)
		return bpf_skb_store_bytes(skb, at, words, length, 0) ||
		       bpf_l4_csum_replace(skb, check, 0, narrow(sum), 0);
	if (!pair->v6) {
		network += offsetof(struct iphdr, ttl);
		if (!read_words(skb, network, headers.v6 + 5, V4_TAIL / 4))
			return -1;
		replace(&headers.v4[0], *(const __be32 *)(to->source + 12), &address);
		replace(&headers.v4[1], *(const __be32 *)(to->destination + 12), &address);
		headers.check = fold((__u16)~headers.check + (__u64)narrow(address));
		failed = at == network + V4_TAIL
			     ? bpf_skb_store_bytes(skb, network, &headers.ttl, V4_TAIL + length, 0)
			     : bpf_skb_store_bytes(skb, network, &headers.ttl, V4_TAIL, 0) ||
				   bpf_skb_store_bytes(skb, at, words, length, 0);
		return failed || bpf_l4_csum_replace(skb, check, 0, narrow(sum), 0) ||
		       bpf_l4_csum_replace(skb, check, 0, narrow(address), BPF_F_PSEUDO_HDR);
	}
	network += offsetof(struct ipv6hdr, saddr);
	if (!read_words(skb, network, headers.v6, V6_TAIL / 4))
		return -1;
	for (int word = 0; word < 4; word++) {
		replace(&headers.v6[word], ((const __be32 *)to->source)[word], &address);
		replace(&headers.v6[4 + word], ((const __be32 *)to->destination)[word], &address);
	}
	failed = at == network + V6_TAIL
		     ? bpf_skb_store_bytes(skb, network, headers.v6, V6_TAIL + length, 0)
		     : bpf_skb_store_bytes(skb, network, headers.v6, V6_TAIL, 0) ||
			   bpf_skb_store_bytes(skb, at, words, length, 0);
	/* Since 6.16 the kernel wants to be told: without a checksum in the IP header, a sum over
	 * the whole packet (CHECKSUM_COMPLETE) stays the same. */
	return failed || bpf_l4_csum_replace(skb, check, 0, narrow(sum), 0) ||
	       (bpf_l4_csum_replace(skb, check, 0, narrow(address), BPF_F_PSEUDO_HDR | CSUM_IPV6) &&
		bpf_l4_csum_replace(skb, check, 0, narrow(address), BPF_F_PSEUDO_HDR));
}

#endif
