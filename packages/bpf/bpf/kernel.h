/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/*
 * The few fields of kernel structures that we read. CO-RE relocates every access to the running
 * kernel's layout, so only names and types matter here, and no vmlinux.h is needed to build.
 */
#ifndef TPROXY_KERNEL_H
#define TPROXY_KERNEL_H

#include <linux/types.h>

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct ns_common {
	unsigned int inum;
};

struct net {
	struct ns_common ns;
};

typedef struct {
	struct net *net;
} possible_net_t;

struct sock_common {
	possible_net_t skc_net;
	unsigned long skc_flags;
};

struct net_device {
	int ifindex;
};

struct dst_entry {
	struct net_device *dev;
};

typedef struct {
	int counter;
} atomic_t;

struct sock {
	struct sock_common __sk_common;
	struct dst_entry *sk_dst_cache;
	struct {
		atomic_t rmem_alloc;
	} sk_backlog;
	int sk_rcvbuf;
	int sk_err;
	__u8 sk_shutdown;
};

struct tcp_congestion_ops {
	const void *cong_control;
};

struct inet_connection_sock {
	const struct tcp_congestion_ops *icsk_ca_ops;
	const void *icsk_ulp_ops;
};

struct minmax_sample {
	__u32 v;
};

struct minmax {
	struct minmax_sample s[3];
};

struct tcp_options_received {
	__u32 ts_recent;
	__u16 tstamp_ok : 1, sack_ok : 3, snd_wscale : 4, rcv_wscale : 4;
};

struct tcp_sock {
	__u32 tsoffset;
	__u32 mss_cache;
	__u8 tcp_usec_ts : 1;
	__u32 copied_seq;
	__u32 write_seq;
	__u8 ecn_flags;
	__u32 rcv_nxt;
	__u32 rcv_wnd;
	__u32 snd_nxt;
	__u32 snd_una;
	__u32 snd_wnd;
	__u64 bytes_received;
	__u64 bytes_acked;
	struct minmax rtt_min;
	_Bool is_mptcp;
	__u32 max_window;
	struct tcp_options_received rx_opt;
	void *md5sig_info;
	void *ao_info;
};

struct pid_namespace {
	struct ns_common ns;
};

struct upid {
	int nr;
	struct pid_namespace *ns;
};

struct pid {
	unsigned int level;
	struct upid numbers[1];
};

struct inode {
	unsigned long i_ino;
};

struct file {
	struct inode *f_inode;
};

struct mm_struct {
	struct file *exe_file;
};

struct task_struct {
	struct mm_struct *mm;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct pid *thread_pid;
	char comm[16];
};

#pragma clang attribute pop

#endif
