import { closeSync } from 'node:fs'
import { c, NativeError } from './ffi.ts'
import { addressFamily, type SocketEnd, writeSocketAddress } from './socket-address.ts'

// Values of the Linux ABI that Node does not expose; alike on x86_64 and aarch64.
const AF_UNIX = 1
const SOCK = { stream: 1, dgram: 2, nonblock: 0o4000, cloexec: 0o2000000 } as const
const SOL = { socket: 1, ip: 0, tcp: 6, ipv6: 41 } as const
const SO = { reuseaddr: 2, keepalive: 9, linger: 13, bindtodevice: 25, mark: 36, netnsCookie: 71 } as const
const IP = { transparent: 19, bindAddressNoPort: 24 } as const
const TCP = { nodelay: 1, maxseg: 2, keepidle: 4, repair: 19 } as const
const IPV6 = { v6only: 26, transparent: 75 } as const

/** See `scratch` in socket-address.ts. */
const int = Buffer.alloc(4)

function setInt(operation: string, fd: number, level: number, name: number, value: number): void {
  int.writeInt32LE(value | 0)
  c.setsockopt(operation, fd, level, name, int, 4)
}

/** `struct linger`: on, and 0 seconds. */
const lingerZero = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0])
const lingerOff = Buffer.alloc(8)

function withSocket(family: 4 | 6, set: (fd: number) => void): number {
  const fd = c.socket('socket', addressFamily[family], SOCK.stream | SOCK.nonblock | SOCK.cloexec, 0)
  try {
    set(fd)
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/**
 * A listening TCP socket that may accept connections to any address (IP_TRANSPARENT, CAP_NET_ADMIN), bound to the loopback
 * address so that nobody reaches it from outside except by assignment. What it accepts inherits `mark` and SO_LINGER with
 * 0 seconds: should this process die, its clients see a reset and never a clean end of a truncated stream. Call
 * {@link endInOrder} once a stream was ended properly. It inherits TCP_NODELAY as well, and after `keepAliveSeconds` of
 * silence the kernel asks whether its peer is still there. Returns the file descriptor.
 */
export function transparentListener(options: {
  family: 4 | 6
  mark: number
  backlog: number
  keepAliveSeconds: number
}): number {
  const { family, mark, backlog, keepAliveSeconds } = options
  const loopback = new Uint8Array(16)
  loopback.set(family === 4 ? [0xff, 0xff, 127, 0, 0, 1] : [1], family === 4 ? 10 : 15)
  return withSocket(family, (fd) => {
    if (family === 6) setInt('set IPV6_V6ONLY', fd, SOL.ipv6, IPV6.v6only, 1)
    if (family === 4) setInt('set IP_TRANSPARENT', fd, SOL.ip, IP.transparent, 1)
    else setInt('set IPV6_TRANSPARENT', fd, SOL.ipv6, IPV6.transparent, 1)
    setInt('set SO_MARK', fd, SOL.socket, SO.mark, mark)
    c.setsockopt('set SO_LINGER', fd, SOL.socket, SO.linger, lingerZero, 8)
    setInt('set TCP_NODELAY', fd, SOL.tcp, TCP.nodelay, 1)
    setInt('set SO_KEEPALIVE', fd, SOL.socket, SO.keepalive, 1)
    setInt('set TCP_KEEPIDLE', fd, SOL.tcp, TCP.keepidle, keepAliveSeconds)
    const address = writeSocketAddress({ family, address: loopback, port: 0 })
    c.bind('bind the listener', fd, address, address.length)
    c.listen('listen', fd, backlog)
  })
}

/**
 * A TCP socket, not yet connected, that leaves from an address, if given, and by `device` only, if given, with a port the kernel
 * chooses at connect(2) (IP_BIND_ADDRESS_NO_PORT, since 4.2: a bound address does not use up the local ports). Returns the file
 * descriptor.
 */
export function outboundSocket(
  { family, address: source }: Pick<SocketEnd, 'family'> & Partial<SocketEnd>,
  device?: string,
): number {
  return withSocket(family, (fd) => {
    if (device !== undefined) {
      const name = Buffer.from(`${device}\0`)
      c.setsockopt(`bind to ${device}`, fd, SOL.socket, SO.bindtodevice, name, name.length)
    }
    if (source === undefined) return
    // At the IP level for both families: the IPv6 stack looks at the same flag.
    setInt('set IP_BIND_ADDRESS_NO_PORT', fd, SOL.ip, IP.bindAddressNoPort, 1)
    const address = writeSocketAddress({ family, address: source, port: 0 })
    c.bind('bind the source address', fd, address, address.length)
  })
}

/**
 * Has a listener ask for segments that fit packets of `mtu` bytes (TCP_MAXSEG), from its next connection on. By itself it would ask
 * for those of lo, where it is: a program's kernel plans its send buffer by them (tcp_sndbuf_expand() of net/ipv4/tcp_input.c), and
 * would begin with 4 MB instead of 69 KB.
 */
export function askForSegments(listener: number, family: 4 | 6, mtu: number): void {
  const headers = family === 4 ? 40 : 60
  // TCP_MIN_MSS and MAX_TCP_WINDOW of include/net/tcp.h: what the kernel lets one ask for.
  const size = Math.min(Math.max(mtu - headers, 88), 32_767)
  setInt('set TCP_MAXSEG', listener, SOL.tcp, TCP.maxseg, size)
}

/** Lets a socket from a {@link transparentListener} end like any other: close(2) delivers what is still unsent. */
export function endInOrder(fd: number): void {
  c.setsockopt('clear SO_LINGER', fd, SOL.socket, SO.linger, lingerOff, 8)
}

/** Has close(2) reset the connection. */
export function resetOnClose(fd: number): void {
  c.setsockopt('set SO_LINGER', fd, SOL.socket, SO.linger, lingerZero, 8)
}

/**
 * Silences a connected TCP socket for good: close(2) then sends nothing (TCP_REPAIR, since 3.5, CAP_NET_ADMIN), and its
 * port stays taken until then.
 */
export function silence(fd: number): void {
  setInt('set TCP_REPAIR', fd, SOL.tcp, TCP.repair, 1)
}

/** Has nobody asked any more whether the peer is still there: of a silent socket, each would seem gone. */
export function stopKeepAlive(fd: number): void {
  setInt('clear SO_KEEPALIVE', fd, SOL.socket, SO.keepalive, 0)
}

/**
 * Takes the port of a connection that goes on without a socket: a socket that is connected and says nothing (TCP_REPAIR).
 * Throws when another has the port, or the address is gone.
 */
export function holdPort(from: SocketEnd, to: SocketEnd): number {
  return withSocket(from.family, (fd) => {
    setInt('set SO_REUSEADDR', fd, SOL.socket, SO.reuseaddr, 1)
    setInt('set TCP_REPAIR', fd, SOL.tcp, TCP.repair, 1)
    const own = writeSocketAddress(from)
    c.bind('hold a port', fd, own, own.length)
    const peer = writeSocketAddress(to)
    connected('hold a port', c.connect(fd, peer, peer.length))
  })
}

function connected(operation: string, result: number): void {
  if (result < 0) throw new NativeError(operation, -result)
}

/** What tells our network namespace from all others since boot (SO_NETNS_COOKIE, since 5.14). */
export function networkNamespaceCookie(): bigint {
  const fd = withSocket(4, () => {})
  try {
    const [cookie, length] = [Buffer.alloc(8), Buffer.from([8, 0, 0, 0])]
    c.getsockopt('get SO_NETNS_COOKIE', fd, SOL.socket, SO.netnsCookie, cookie, length)
    return cookie.readBigUInt64LE()
  } finally {
    closeSync(fd)
  }
}

/** Another descriptor of the same open file, closed on exec. */
export function duplicate(fd: number): number {
  const dupfdCloexec = 1030
  return c.fcntl('duplicate a descriptor', fd, dupfdCloexec, 0)
}

/** How many bytes wait to be read, as the kernel tells programs that ask (FIONREAD). */
export function unread(fd: number): number {
  const [fionread, answer] = [0x541b, Buffer.alloc(4)]
  c.ioctl('ask how many bytes wait', fd, fionread, answer)
  return answer.readInt32LE()
}

/** Takes the lock on an open file without waiting; false when another process has it (flock(2)). */
export function tryLock(fd: number): boolean {
  const [exclusive, nonblocking] = [2, 4]
  try {
    c.flock('flock', fd, exclusive | nonblocking)
    return true
  } catch {
    return false
  }
}

/**
 * A datagram socket of AF_UNIX, which Node has none of, connected to a path, or to an abstract address that begins with @.
 * Each write is a datagram; none blocks. Returns the file descriptor.
 */
export function datagramSocket(path: string): number {
  const name = Buffer.from(path)
  if (name[0] === '@'.charCodeAt(0)) name[0] = 0
  const address = Buffer.alloc(2 + name.length)
  address.writeUInt16LE(AF_UNIX, 0)
  name.copy(address, 2)
  const fd = c.socket('socket', AF_UNIX, SOCK.dgram | SOCK.nonblock | SOCK.cloexec, 0)
  try {
    connected(`connect to ${path}`, c.connect(fd, address, address.length))
    return fd
  } catch (error) {
    closeSync(fd)
    throw error
  }
}
