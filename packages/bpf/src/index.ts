export { NativeError } from './ffi.ts'
export * from './layout.gen.ts'
export { endInOrder, outboundSocket, transparentListener, tryLock } from './sockets.ts'
export { type Counters, LoadError, libbpfVersion, replyMark, Steering } from './steering.ts'
