import { closeSync } from 'node:fs'
import { c, watchReadable } from './ffi.ts'

const AF_NETLINK = 16
/** SOCK_RAW, SOCK_NONBLOCK and SOCK_CLOEXEC. */
const type = 3 | 0o4000 | 0o2000000
/** Links, routes and routing rules of both families: RTMGRP_* and RTNLGRP_IPV6_RULE of include/uapi/linux/rtnetlink.h. */
const groups = 0x1 | 0x40 | 0x80 | 0x400 | (1 << (19 - 1))

/**
 * Tells when interfaces, routes or routing rules of this network namespace change (rtnetlink(7)); what changed is for the caller to look
 * up. One call may stand for many changes. Needs no privileges.
 */
export function watchNetwork(changed: () => void): { close(): void } {
  const fd = c.socket('netlink socket', AF_NETLINK, type, 0)
  // struct sockaddr_nl: family, padding, port id (chosen by the kernel), groups
  const address = Buffer.alloc(12)
  address.writeUInt16LE(AF_NETLINK, 0)
  address.writeUInt32LE(groups, 8)
  c.bind('bind the netlink socket', fd, address, address.length)
  const buffer = Buffer.alloc(64 * 1024)
  const watch = watchReadable(fd, () => {
    // ENOBUFS, for changes that were lost, is a change too.
    while (c.recv(fd, buffer, buffer.length, 0) > 0);
    changed()
  })
  return {
    close: () => {
      watch.close()
      closeSync(fd)
    },
  }
}
