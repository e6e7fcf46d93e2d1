/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* What programs still send once nobody is there who proxies it: nothing. */
#ifndef TPROXY_LEAVE_H
#define TPROXY_LEAVE_H

#include "kernel.h"
#include "maps.h"

extern int bpf_sock_destroy(struct sock_common *sk) __ksym;

/*
 * Run for each TCP socket of this host, by whoever reads the iterator, before the hooks go: resets
 * what is proxied, both ways (since 6.5; where its program is gone, since 6.11, see tcp_abort() of
 * net/ipv4/tcp.c). Bytes that were not acknowledged yet outlive their program: its socket would
 * repeat them for minutes, past hooks that are gone, to where they were never to go. What the rules
 * or a plugin have left alone goes on. Always returns 0: the next one.
 */
SEC("iter/tcp")
int BPF_PROG(end_proxied, const void *meta, struct sock_common *sk)
{
	struct opened *opened = sk ? bpf_sk_storage_get(&sockets, sk, NULL, 0) : NULL;

	if (opened && opened->decided == DECIDED_BY_RULE && opened->verdict.action == ACTION_PROXY)
		bpf_sock_destroy(sk);
	return 0;
}

#endif
