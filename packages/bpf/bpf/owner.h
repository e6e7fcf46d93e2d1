/* SPDX-License-Identifier: MIT OR GPL-2.0-only */
/* Who opens a connection, and whether it is one of us. */
#ifndef TPROXY_OWNER_H
#define TPROXY_OWNER_H

#include "alone.h"
#include "kernel.h"
#include "maps.h"

/* Read by helpers: for each field that is looked at in place, behind a trusted pointer, the
 * verifier searches all types of the kernel by name (btf_nested_type_is_trusted() of
 * kernel/bpf/btf.c), which took it 100 ms. */

/* The pid of a task's thread group in our own pid namespace, or 0 where it is not visible from
 * there. */
static __always_inline __u32 pid_of(const struct task_struct *task)
{
	const struct pid *pid = BPF_CORE_READ(task, group_leader, thread_pid);
	const void *numbers = __builtin_preserve_access_index(&pid->numbers);
	__u32 level = BPF_CORE_READ(pid, level);

	for (__u32 i = 0; i < LIMIT_PID_LEVELS && i <= level; i++) {
		const struct upid *entry = numbers + i * bpf_core_type_size(struct upid);
		struct pid_namespace *ns = BPF_CORE_READ(entry, ns);

		if (BPF_CORE_READ(ns, ns.inum) == settings.pidns)
			return BPF_CORE_READ(entry, nr);
	}
	return 0;
}

static __always_inline const struct inode *executable_of(const struct task_struct *task)
{
	return BPF_CORE_READ(task, mm, exe_file, f_inode);
}

/* Exempt are the processes in the map and, where it says so, their descendants. */
static __always_inline __u32 is_exempt(const struct task_struct *task)
{
	const struct inode *executable = executable_of(task);

	for (__u32 generation = 0; generation < LIMIT_ANCESTORS; generation++) {
		__u32 pid = pid_of(task);
		__u32 *exemption = bpf_map_lookup_elem(&exempt, &pid);

		if (exemption) {
			if (*exemption & (generation ? EXEMPT_DESCENDANTS : EXEMPT_PROCESS))
				return 1;
			if (generation && *exemption & EXEMPT_FORKS &&
			    executable_of(task) == executable)
				return 1;
		}
		/* 0: outside our pid namespace, where nobody is exempt; 1: init, the end of every
		 * line. */
		if (pid <= 1)
			return 0;
		task = BPF_CORE_READ(task, group_leader, real_parent);
	}
	return 0;
}

/*
 * Every TCP socket that begins to connect, in the context of the process that calls connect(2);
 * io_uring's workers are threads of theirs. And what becomes of those that the process waits for. A
 * tracepoint, because it sees all programs of this host without attaching to anybody's cgroup, and
 * before the first packet. Always returns 0.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(connect_owner, struct sock *sk, int from, int to)
{
	struct task_struct *task;
	struct opened *opened;
	__u64 ids;

	if (to != BPF_TCP_SYN_SENT && to != BPF_TCP_ESTABLISHED && to != BPF_TCP_CLOSE)
		return 0;
	if (!is_of_this_host(sk))
		return 0;
	if (to != BPF_TCP_SYN_SENT) {
		tell_of(sk, from, to);
		return 0;
	}
	opened = bpf_sk_storage_get(&sockets, sk, NULL, BPF_SK_STORAGE_GET_F_CREATE);
	if (!opened)
		return because(COUNT_OWNER_LOST, 0);
	task = bpf_get_current_task_btf();
	ids = bpf_get_current_uid_gid();
	opened->owner.pid = pid_of(task);
	opened->owner.uid = (__u32)ids;
	opened->owner.gid = ids >> 32;
	opened->owner.cgroup = bpf_get_current_cgroup_id();
	/* Rules compare all of it, and it may hold a longer one. */
	__builtin_memset(opened->owner.name, 0, sizeof(opened->owner.name));
	BPF_CORE_READ_STR_INTO(&opened->owner.name, task, group_leader, comm);
	opened->known = 1;
	opened->exempt = is_exempt(task);
	/* A socket may connect again after connect(AF_UNSPEC). */
	opened->decided = UNDECIDED;
	opened->stage = STAGE_NONE;
	opened->reached = 0;
	opened->id = 0;
	return 0;
}

#endif
