export { programsDigest } from './digest.ts'
export { Fastpath, type FastpathCounters } from './fastpath.ts'
export { NativeError } from './ffi.ts'
export * from './layout.gen.ts'
export { type Restored } from './links.ts'
export { watchNetwork } from './network-changes.ts'
export { LoadError } from './object.ts'
export { type HeldSyn, type LeftAlone, leftAlone, type OpeningListener, Openings } from './openings.ts'
export { type RuleList } from './rules-in-force.ts'
export { type SocketEnd } from './socket-address.ts'
export {
  askForSegments,
  datagramSocket,
  duplicate,
  endInOrder,
  holdPort,
  networkNamespaceCookie,
  outboundSocket,
  resetOnClose,
  silence,
  stopKeepAlive,
  transparentListener,
  tryLock,
  unread,
} from './sockets.ts'
export { type ArmRequest, type PairAddresses, Splicing, unpin } from './splicing.ts'
export { type Counters, libbpfVersion, replyMark, Steering } from './steering.ts'
export {
  accept,
  closeDescriptor,
  emptyFlow,
  localEnd,
  peek,
  Readiness,
  receive,
  transmit,
  tryConnect,
  watchListener,
} from './tcp.ts'
