import { createServer, type Server, Socket } from 'node:net'
import { endInOrder, type Fastpath, type Flow, type FlowKey, outboundSocket } from '@tproxy/bpf'
import { addressBytes, type Endpoint, endpoint } from '../endpoint.ts'
import type { Remember, Remembered } from '../remember.ts'
import type { Accepted } from '../transport.ts'
import type { Device } from './devices.ts'

export interface AcceptorOptions {
  readonly device: Device
  /** Of a listening transparent socket. The server owns it. */
  readonly fd: number
  readonly backlog: number
  readonly budget: Budget
  readonly takeFlow: (key: FlowKey) => Flow | undefined
  readonly fastpath?: Fastpath
  readonly remember: (
    flow: Flow,
    destination: Endpoint,
    verdict: Remembered['verdict'],
    how: Remember,
  ) => Remembered | undefined
  readonly describe: (flow: Flow | undefined) => Pick<Accepted, 'process' | 'rule' | 'via'>
  readonly accepted: (accepted: Accepted) => void
  readonly warn: (message: string) => void
}

/** Connections at once, over all listeners: beyond what file descriptors allow, new ones are refused. */
export interface Budget {
  readonly limit: number
  open: number
}

/** Accepts what the kernel hands to one transparent listener. */
export async function listenOn(options: AcceptorOptions): Promise<Server> {
  const { device, fd, backlog, warn } = options
  const server = createServer({ allowHalfOpen: true, pauseOnConnect: true })
  server.on('error', (error) => warn(`accept on ${device.interface.name}: ${error.message}`))
  // As an option beside fd, backlog is ignored, and 511 applies (Node 24).
  await new Promise<void>((resolve) => server.listen({ fd }, backlog, resolve))
  const own = server.address() as { address: string; port: number }
  server.on('connection', (socket) => accept(socket, own, options))
  return server
}

function accept(socket: Socket, own: { address: string; port: number }, options: AcceptorOptions): void {
  const { localAddress, localPort, remoteAddress, remotePort } = socket
  // Gone before we looked.
  if (
    localAddress === undefined ||
    localPort === undefined ||
    remoteAddress === undefined ||
    remotePort === undefined
  ) {
    socket.destroy()
    return
  }
  // Somebody dialled the listener itself: there is no destination to go to, and we are nobody's open proxy.
  if (localPort === own.port && localAddress === own.address) {
    socket.resetAndDestroy()
    return
  }
  const { budget, warn } = options
  if (budget.open >= budget.limit) {
    warn(`refused a connection: ${budget.limit} are open, as many as file descriptors allow`)
    socket.resetAndDestroy()
    return
  }
  budget.open++
  socket.once('close', () => {
    budget.open--
  })
  const source = endpoint(remoteAddress, remotePort)
  const destination = endpoint(localAddress, localPort)
  const key = keyOf({ source, destination })
  const flow = options.takeFlow(key)
  const { name } = options.device.interface
  options.accepted({
    socket,
    source,
    destination,
    interface: name,
    ...options.describe(flow),
    direct: (signal) => connectFrom(source, destination, flow?.bound === 1 ? name : undefined, signal),
    closeInOrder: () => {
      const fd = descriptor(socket)
      if (fd !== undefined) endInOrder(fd)
    },
    ...(flow !== undefined && {
      remember: (verdict, how) => options.remember(flow, destination, verdict, how),
    }),
    accelerate: () => {
      const fd = descriptor(socket)
      if (fd !== undefined) join(options.fastpath, key, fd)
    },
  })
}

/** What the kernel cannot do for lack of memory costs speed, and no connection. */
function join(fastpath: Fastpath | undefined, key: FlowKey, fd: number): void {
  try {
    fastpath?.join(key, fd)
  } catch {
    // It goes on by TCP.
  }
}

/** The descriptor of a socket that was closed meanwhile may belong to another by now. */
function descriptor(socket: Socket): number | undefined {
  const handle = (socket as unknown as { _handle: { fd: number } | null })._handle
  return handle !== null && handle.fd >= 0 ? handle.fd : undefined
}

/** A connection as the kernel's maps know it. */
export function keyOf({ source, destination }: Pick<Accepted, 'source' | 'destination'>): FlowKey {
  return {
    source: addressBytes(source.address),
    destination: addressBytes(destination.address),
    sourcePort: source.port,
    destinationPort: destination.port,
  }
}

/**
 * Connects as the program itself would have: from its address, and by its interface if its socket was bound to that. Not
 * otherwise: the kernel takes a bound and an unbound socket for different ones, and would give a program the very port
 * that ours uses towards the same destination.
 */
async function connectFrom(
  source: Endpoint,
  destination: Endpoint,
  device: string | undefined,
  signal: AbortSignal,
): Promise<Socket> {
  const { promise, resolve, reject } = Promise.withResolvers<Socket>()
  const fd = outboundSocket({
    family: source.family,
    source: addressBytes(source.address),
    ...(device !== undefined && { device }),
  })
  const socket = new Socket({ fd, allowHalfOpen: true })
  const abort = () => socket.destroy(signal.reason as Error)
  signal.addEventListener('abort', abort, { once: true })
  socket.once('error', (error) => {
    signal.removeEventListener('abort', abort)
    reject(error)
  })
  socket.connect({ host: destination.address, port: destination.port }, () => {
    signal.removeEventListener('abort', abort)
    resolve(socket)
  })
  return promise
}
