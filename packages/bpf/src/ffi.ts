// The only file that touches native code: libbpf and libc through koffi. Every function is bound when it is first called,
// so that an old library costs only what needs it.
import koffi, { type LibraryHandle } from 'koffi'

export class NativeError extends Error {
  override readonly name = 'NativeError'
  /** Positive errno of the failed call, or 0 when a library or symbol is missing. */
  readonly errno: number
  /** Such as `EPERM`. */
  readonly errnoName: string
  constructor(operation: string, errno: number, options: { detail?: string; cause?: unknown } = {}) {
    const name = Object.entries(koffi.os.errno).find(([, value]) => value === errno)?.[0] ?? `errno ${errno}`
    const text = errno === 0 ? 'not available' : name
    super(`${operation}: ${options.detail ?? text}`, { cause: options.cause })
    this.errno = errno
    this.errnoName = name
  }
}

/** An opaque native address. */
export type Pointer = bigint

type Native = (...args: unknown[]) => unknown

/** `operation` says in an error what was attempted; the other arguments are the native function's. */
type Call<Args extends unknown[], Result = number> = (operation: string, ...args: Args) => Result

function library(name: string, hint: string): () => LibraryHandle {
  let handle: LibraryHandle | undefined
  return () => {
    if (handle !== undefined) return handle
    try {
      handle = koffi.load(name)
      return handle
    } catch (cause) {
      throw new NativeError(`load ${name}`, 0, { detail: `not found (${hint})`, cause })
    }
  }
}

const libc = library('libc.so.6', 'tproxy needs glibc')
const libbpf = library('libbpf.so.1', 'install libbpf 1.0 or newer, on Debian: apt-get install libbpf1')

function bind(from: () => LibraryHandle, declaration: string): Native {
  let bound: Native | undefined
  return (...args) => {
    if (bound === undefined)
      try {
        bound = from().func(declaration) as Native
      } catch (cause) {
        if (cause instanceof NativeError) throw cause
        throw new NativeError(`bind ${declaration}`, 0, { detail: (cause as Error).message, cause })
      }
    return bound(...args)
  }
}

/** For functions of libbpf that return a value or -errno. */
function bpfInt<Args extends unknown[]>(declaration: string): Call<Args> {
  const call = bind(libbpf, declaration)
  return (operation, ...args) => {
    const result = call(...args) as number
    if (result < 0) throw new NativeError(operation, -result)
    return result
  }
}

/** For functions that return a pointer, NULL for failure with errno set. */
function bpfPointer<Args extends unknown[]>(declaration: string): Call<Args, Pointer> {
  const call = bind(libbpf, declaration)
  return (operation, ...args) => {
    const result = call(...args) as Pointer | null
    if (!result) throw new NativeError(operation, koffi.errno())
    return result
  }
}

/** For functions of libc that return -1 for failure with errno set. */
function libcInt<Args extends unknown[]>(declaration: string): Call<Args> {
  const call = bind(libc, declaration)
  return (operation, ...args) => {
    const result = call(...args) as number
    if (result < 0) throw new NativeError(operation, koffi.errno())
    return result
  }
}

/** For functions of libc that fail often and in order: what they return, or -errno. */
function libcResult<Args extends unknown[]>(declaration: string): (...args: Args) => number {
  const call = bind(libc, declaration)
  return (...args) => {
    const result = call(...args) as number
    return result < 0 ? -koffi.errno() : result
  }
}

interface Libbpf {
  open: Call<[path: string, options: null], Pointer>
  load: Call<[object: Pointer]>
  close: (object: Pointer) => void
  findMap: Call<[object: Pointer, name: string], Pointer>
  findProgram: Call<[object: Pointer, name: string], Pointer>
  /** The one behind another, or the first; null behind the last. */
  nextProgram: (object: Pointer, behind: Pointer | null) => Pointer | null
  nextMap: (object: Pointer, behind: Pointer | null) => Pointer | null
  programName: (program: Pointer) => string
  mapName: (map: Pointer) => string
  /** Before loading: whether the program is loaded. */
  setAutoload: Call<[program: Pointer, loaded: boolean]>
  setInitialValue: Call<[map: Pointer, data: Buffer, size: number]>
  /** From load on a map is the one that is pinned there, or is pinned there itself. */
  setPinPath: Call<[map: Pointer, path: string]>
  pin: Call<[fd: number, path: string]>
  /** Before loading: the object's map is this one. */
  reuseMap: Call<[map: Pointer, fd: number]>
  mapFd: Call<[map: Pointer]>
  programFd: Call<[program: Pointer]>
  updateElement: Call<[fd: number, key: Buffer, value: Buffer, flags: number]>
  /** 0, or -errno. */
  lookupElement: (fd: number, key: Buffer, value: Buffer) => number
  /** Looks up and deletes; 0, or -errno. */
  takeElement: (fd: number, key: Buffer, value: Buffer) => number
  deleteElement: (fd: number, key: Buffer) => number
  /** The key behind one, or the first; 0, or -errno. */
  nextKey: (fd: number, key: Buffer | null, next: Buffer) => number
  /** Of an array: as many as `count` says, behind a key or from the first on. */
  lookupBatch: Call<
    [
      fd: number,
      behind: Buffer | null,
      last: Buffer,
      keys: Buffer,
      values: Buffer,
      count: Buffer,
      options: null,
    ]
  >
  updateBatch: Call<[fd: number, keys: Buffer, values: Buffer, count: Buffer, options: null]>
  /** Of any kind; the fd is the map. */
  createMap: Call<
    [type: number, name: string, keySize: number, valueSize: number, entries: number, options: null]
  >
  /** A link of any kind; the fd is the link, closing it detaches. */
  createLink: Call<[program: number, target: number, attachType: number, options: null]>
  /** What runs the program of such a link for each of what it iterates over, when it is read. */
  createIterator: Call<[link: number]>
  objectInfo: (operation: string, fd: number, info: Buffer) => void
  programById: Call<[id: number]>
  queryPrograms: Call<
    [target: number, attachType: number, how: number, flags: Buffer, ids: Buffer, count: Buffer]
  >
  possibleCpus: Call<[]>
  ringBufferFd: (ring: Pointer) => number
  /** How many entries were handed on, or -errno. */
  consumeRingBuffer: (ring: Pointer) => number
  freeRingBuffer: (ring: Pointer) => void
  setPrint: (callback: Pointer | null) => void
  /** Such as `v1.1`. */
  version: () => string
}

const objectInfo = bpfInt<[fd: number, info: Buffer, length: Buffer]>(
  'int bpf_obj_get_info_by_fd(int, _Inout_ void *, _Inout_ uint32_t *)',
)

export const bpf: Libbpf = {
  open: bpfPointer('void *bpf_object__open_file(const char *, const void *)'),
  load: bpfInt('int bpf_object__load(void *)'),
  close: bind(libbpf, 'void bpf_object__close(void *)') as Libbpf['close'],
  findMap: bpfPointer('void *bpf_object__find_map_by_name(void *, const char *)'),
  findProgram: bpfPointer('void *bpf_object__find_program_by_name(void *, const char *)'),
  nextProgram: bind(libbpf, 'void *bpf_object__next_program(const void *, void *)') as Libbpf['nextProgram'],
  nextMap: bind(libbpf, 'void *bpf_object__next_map(const void *, const void *)') as Libbpf['nextMap'],
  programName: bind(libbpf, 'const char *bpf_program__name(const void *)') as Libbpf['programName'],
  mapName: bind(libbpf, 'const char *bpf_map__name(const void *)') as Libbpf['mapName'],
  setAutoload: bpfInt('int bpf_program__set_autoload(void *, bool)'),
  setInitialValue: bpfInt('int bpf_map__set_initial_value(void *, const void *, size_t)'),
  setPinPath: bpfInt('int bpf_map__set_pin_path(void *, const char *)'),
  pin: bpfInt('int bpf_obj_pin(int, const char *)'),
  reuseMap: bpfInt('int bpf_map__reuse_fd(void *, int)'),
  mapFd: bpfInt('int bpf_map__fd(void *)'),
  programFd: bpfInt('int bpf_program__fd(void *)'),
  updateElement: bpfInt('int bpf_map_update_elem(int, const void *, const void *, uint64_t)'),
  lookupElement: bind(
    libbpf,
    'int bpf_map_lookup_elem(int, const void *, _Out_ void *)',
  ) as Libbpf['lookupElement'],
  takeElement: bind(
    libbpf,
    'int bpf_map_lookup_and_delete_elem(int, const void *, _Out_ void *)',
  ) as Libbpf['takeElement'],
  deleteElement: bind(libbpf, 'int bpf_map_delete_elem(int, const void *)') as Libbpf['deleteElement'],
  nextKey: bind(libbpf, 'int bpf_map_get_next_key(int, const void *, _Out_ void *)') as Libbpf['nextKey'],
  lookupBatch: bpfInt(
    'int bpf_map_lookup_batch(int, const void *, _Out_ void *, _Out_ void *, _Out_ void *, _Inout_ uint32_t *, const void *)',
  ),
  updateBatch: bpfInt(
    'int bpf_map_update_batch(int, const void *, const void *, _Inout_ uint32_t *, const void *)',
  ),
  createMap: bpfInt('int bpf_map_create(int, const char *, uint32_t, uint32_t, uint32_t, const void *)'),
  createLink: bpfInt('int bpf_link_create(int, int, int, const void *)'),
  createIterator: bpfInt('int bpf_iter_create(int)'),
  ringBufferFd: bind(libbpf, 'int ring_buffer__epoll_fd(void *)') as Libbpf['ringBufferFd'],
  consumeRingBuffer: bind(libbpf, 'int ring_buffer__consume(void *)') as Libbpf['consumeRingBuffer'],
  freeRingBuffer: bind(libbpf, 'void ring_buffer__free(void *)') as Libbpf['freeRingBuffer'],
  objectInfo(operation, fd, info) {
    const length = Buffer.alloc(4)
    length.writeUInt32LE(info.length)
    objectInfo(operation, fd, info, length)
  },
  programById: bpfInt('int bpf_prog_get_fd_by_id(uint32_t)'),
  queryPrograms: bpfInt(
    'int bpf_prog_query(int, int, uint32_t, _Out_ uint32_t *, _Out_ uint32_t *, _Inout_ uint32_t *)',
  ),
  possibleCpus: bpfInt('int libbpf_num_possible_cpus(void)'),
  setPrint: bind(libbpf, 'void *libbpf_set_print(void *)') as Libbpf['setPrint'],
  version: bind(libbpf, 'const char *libbpf_version_string(void)') as Libbpf['version'],
}

/** Those without an operation return a number, or -errno. */
interface Libc {
  socket: Call<[domain: number, type: number, protocol: number]>
  bind: Call<[fd: number, address: Buffer, length: number]>
  listen: Call<[fd: number, backlog: number]>
  accept: (fd: number, address: Buffer, length: Buffer, flags: number) => number
  connect: (fd: number, address: Buffer, length: number) => number
  close: (fd: number) => number
  localAddress: Call<[fd: number, address: Buffer, length: Buffer]>
  remoteAddress: Call<[fd: number, address: Buffer, length: Buffer]>
  setsockopt: Call<[fd: number, level: number, name: number, value: Buffer, length: number]>
  getsockopt: Call<[fd: number, level: number, name: number, value: Buffer, length: Buffer]>
  flock: Call<[fd: number, operation: number]>
  fcntl: Call<[fd: number, operation: number, argument: number]>
  ioctl: Call<[fd: number, operation: number, argument: Buffer]>
  recv: (fd: number, buffer: Buffer, length: number, flags: number) => number
  send: (fd: number, buffer: Buffer, length: number, flags: number) => number
  createEpoll: Call<[flags: number]>
  controlEpoll: Call<[epoll: number, operation: number, fd: number, event: Buffer]>
  waitEpoll: (epoll: number, events: Buffer, most: number, timeoutMs: number) => number
}

export const c: Libc = {
  socket: libcInt('int socket(int, int, int)'),
  bind: libcInt('int bind(int, const void *, unsigned int)'),
  listen: libcInt('int listen(int, int)'),
  accept: libcResult('int accept4(int, void *, void *, int)'),
  connect: libcResult('int connect(int, const void *, unsigned int)'),
  close: libcResult('int close(int)'),
  localAddress: libcInt('int getsockname(int, _Out_ void *, _Inout_ void *)'),
  remoteAddress: libcInt('int getpeername(int, _Out_ void *, _Inout_ void *)'),
  getsockopt: libcInt('int getsockopt(int, int, int, _Out_ void *, _Inout_ void *)'),
  setsockopt: libcInt('int setsockopt(int, int, int, const void *, unsigned int)'),
  flock: libcInt('int flock(int, int)'),
  // Variadic, which makes no difference for one argument where we run.
  fcntl: libcInt('int fcntl(int, int, int)'),
  ioctl: libcInt('int ioctl(int, unsigned long, _Out_ void *)'),
  recv: libcResult('long recv(int, _Out_ void *, size_t, int)'),
  send: libcResult('long send(int, const void *, size_t, int)'),
  createEpoll: libcInt('int epoll_create1(int)'),
  controlEpoll: libcInt('int epoll_ctl(int, int, int, void *)'),
  waitEpoll: libcResult('int epoll_wait(int, _Out_ void *, int, int)'),
}

const signalMask = bind(libc, 'int pthread_sigmask(int, const void *, _Out_ void *)')

/**
 * Runs `work` without an interruption. The verifier gives up with EAGAIN on a signal, and under a profiler, which sends one
 * each millisecond, whenever it is asked again.
 */
export function withoutSignals<T>(work: () => T): T {
  const [block, set] = [0, 2]
  const [all, before] = [Buffer.alloc(128, 0xff), Buffer.alloc(128)]
  signalMask(block, all, before)
  try {
    return work()
  } finally {
    signalMask(set, before, null)
  }
}

/**
 * Runs what native code calls. An error that left it would be lost, and koffi would never call back again: it goes the way of all
 * that nobody catches.
 */
function calledBack(work: () => void): void {
  try {
    work()
  } catch (error) {
    setImmediate(() => {
      throw error
    })
  }
}

/** Calls back from the event loop whenever a descriptor is readable; does not keep the process alive. */
export function watchReadable(
  fd: number,
  readable: () => void,
): { close(): void; ref(): void; unref(): void } {
  const handle = koffi.node.poll(fd, { readable: true }, () => calledBack(readable))
  handle.unref()
  return handle
}

const sample = koffi.proto('int tproxy_ring_sample(void *context, void *data, size_t size)')
const newRingBuffer = bpfPointer<[map: number, sample: Pointer, context: null, options: null]>(
  'void *ring_buffer__new(int, void *, void *, const void *)',
)

const copy = bind(libc, 'void memcpy(_Out_ void *, const void *, size_t)')

/** Entries at a time, before others have their turn: one who makes them faster than they are read must not have all of ours. */
const ringBurst = 64

/**
 * Calls back from the event loop with every entry of a BPF_MAP_TYPE_RINGBUF, to be read before it returns and not after. May be
 * closed by what it calls.
 */
export function watchRingBuffer(
  operation: string,
  map: number,
  entry: (bytes: Buffer) => void,
): { close(): void } {
  let bytes = Buffer.alloc(0)
  let left = 0
  let isReading = false
  let isClosed = false
  const callback = koffi.register((_context: unknown, data: unknown, size: number) => {
    if (bytes.length !== size) bytes = Buffer.alloc(size)
    // A view of it would cost 2 µs, and this a tenth.
    copy(bytes, data, size)
    calledBack(() => entry(bytes))
    // Less than zero, and libbpf stops behind this one; the descriptor stays readable while there are more.
    return isClosed || --left === 0 ? -1 : 0
  }, koffi.pointer(sample))
  let ring: Pointer
  try {
    ring = newRingBuffer(operation, map, callback as Pointer, null, null)
  } catch (error) {
    koffi.unregister(callback)
    throw error
  }
  const free = () => {
    bpf.freeRingBuffer(ring)
    koffi.unregister(callback)
  }
  const watch = watchReadable(bpf.ringBufferFd(ring), () => {
    left = ringBurst
    isReading = true
    try {
      bpf.consumeRingBuffer(ring)
    } finally {
      isReading = false
      if (isClosed) free()
    }
  })
  return {
    close() {
      if (isClosed) return
      isClosed = true
      watch.close()
      // Who is called by it would take the ring, and itself, from under libbpf.
      if (!isReading) free()
    },
  }
}

// syscall(2) is variadic, which on both ABIs is called like this.
const rawSyscall = libcInt<[number: number, command: number, attr: Buffer, size: number]>(
  'long syscall(long, long, void *, long)',
)

const sysBpf = { x64: 321, arm64: 280 }[process.arch as 'x64' | 'arm64']

/** Where a program goes among those of a hook: before all others, or beside one that is there; else behind them. */
export type TcxPlace = { readonly first: boolean } | { readonly before: number } | { readonly after: number }

/** BPF_LINK_CREATE for tcx with a place in the order, which libbpf 1.1 cannot say. Returns the link's fd. */
export function linkTcx(
  operation: string,
  link: { program: number; ifindex: number; attachType: number },
  place: TcxPlace = { first: false },
): number {
  // struct { prog_fd, target_ifindex, attach_type, flags, { relative_fd, expected_revision } } of union bpf_attr
  const attr = Buffer.alloc(64)
  const [linkCreate, before, after] = [28, 8, 16]
  attr.writeUInt32LE(link.program, 0)
  attr.writeUInt32LE(link.ifindex, 4)
  attr.writeUInt32LE(link.attachType, 8)
  // BPF_F_BEFORE without a relative one is before all.
  if ('before' in place || ('first' in place && place.first)) attr.writeUInt32LE(before, 12)
  if ('after' in place) attr.writeUInt32LE(after, 12)
  attr.writeUInt32LE('before' in place ? place.before : 'after' in place ? place.after : 0, 16)
  return rawSyscall(operation, sysBpf, linkCreate, attr, attr.length)
}

const testRunOptions = koffi.struct('bpf_test_run_opts', {
  sz: 'size_t',
  data_in: 'const void *',
  data_out: 'void *',
  data_size_in: 'uint32_t',
  data_size_out: 'uint32_t',
  ctx_in: 'const void *',
  ctx_out: 'void *',
  ctx_size_in: 'uint32_t',
  ctx_size_out: 'uint32_t',
  retval: 'uint32_t',
  repeat: 'int',
  duration: 'uint32_t',
  flags: 'uint32_t',
  cpu: 'uint32_t',
  batch_size: 'uint32_t',
})
const testRun = bpfInt<[program: number, options: object]>(
  'int bpf_prog_test_run_opts(int, _Inout_ bpf_test_run_opts *)',
)

/**
 * BPF_PROG_TEST_RUN: runs a program on a packet that nobody sends. `answer` receives the packet as the program left it and
 * must be as long; nanoseconds are the mean over `repeat` runs.
 */
export function runProgram(
  operation: string,
  program: number,
  packet: Buffer,
  options: { context?: Buffer; answer?: Buffer; repeat?: number } = {},
): { returned: number; nanoseconds: number } {
  const { context, answer, repeat = 1 } = options
  const run = {
    sz: koffi.sizeof(testRunOptions),
    data_in: packet,
    data_size_in: packet.length,
    ...(answer !== undefined && { data_out: answer, data_size_out: answer.length }),
    ...(context !== undefined && { ctx_in: context, ctx_size_in: context.length }),
    repeat,
  } as { retval?: number; duration?: number }
  testRun(operation, program, run)
  return { returned: run.retval ?? 0, nanoseconds: run.duration ?? 0 }
}

/** A program that is run often on one packet, which it changes. */
export interface PreparedRun {
  /** Its bytes, before and after. Throws once it is closed, as all of this does. */
  readonly packet: Buffer
  /** What the program finds in its context. */
  mark: number
  ifindex: number
  /** On the first bytes, or all. Returns what the program returned. */
  run(length?: number): number
  close(): void
}

/** Of `struct __sk_buff`, include/uapi/linux/bpf.h. */
const skb = { size: 192, mark: 8, ifindex: 40 } as const

/** {@link runProgram} for programs whose time counts: everything lies ready, and a run costs one system call. */
export function prepareRun(operation: string, program: number, size: number): PreparedRun {
  const memory = koffi.alloc('uint8_t', size + skb.size)
  const address = koffi.address(memory)
  const bytes = Buffer.from(koffi.view(memory, size + skb.size))
  const context = bytes.subarray(size)
  // struct { prog_fd, retval, data_size_in, data_size_out; data_in, data_out; repeat, duration, ctx_size_in, ctx_size_out; ctx_in; … }
  // test of union bpf_attr
  const attr = Buffer.alloc(80)
  const [testRunCommand, retval, sizeIn, sizeOut] = [10, 4, 8, 12]
  attr.writeUInt32LE(program, 0)
  attr.writeBigUInt64LE(address, 16)
  attr.writeBigUInt64LE(address, 24)
  attr.writeUInt32LE(skb.size, 40)
  attr.writeBigUInt64LE(address + BigInt(size), 48)
  const packet = bytes.subarray(0, size)
  let isClosed = false
  // Written to later, the memory is somebody else's.
  const requireOpen = () => {
    if (isClosed) throw new Error(`${operation}: the BPF programs are unloaded`)
  }
  return {
    get packet() {
      requireOpen()
      return packet
    },
    set mark(mark: number) {
      requireOpen()
      context.writeUInt32LE(mark, skb.mark)
    },
    set ifindex(ifindex: number) {
      requireOpen()
      context.writeUInt32LE(ifindex, skb.ifindex)
    },
    run(length = size) {
      requireOpen()
      attr.writeUInt32LE(length, sizeIn)
      attr.writeUInt32LE(length, sizeOut)
      rawSyscall(operation, sysBpf, testRunCommand, attr, attr.length)
      return attr.readUInt32LE(retval)
    },
    close() {
      if (isClosed) return
      isClosed = true
      koffi.free(memory)
    },
  }
}

const printer = koffi.proto('int tproxy_libbpf_print(int level, const char *format, void *arguments)')
const format = bind(libc, 'int vsnprintf(_Out_ char *, size_t, const char *, void *)')

/** Runs `work` and collects what libbpf and the verifier say meanwhile. */
export function withLibbpfLog<T>(
  work: () => T,
): { result: T; log: string } | { error: unknown; log: string } {
  const lines: string[] = []
  const buffer = Buffer.alloc(64 * 1024)
  const callback = koffi.register((_level: number, text: string, args: unknown) => {
    const length = Math.min(format(buffer, buffer.length, text, args) as number, buffer.length - 1)
    lines.push(buffer.toString('utf8', 0, Math.max(0, length)))
    return 0
  }, koffi.pointer(printer))
  bpf.setPrint(callback as Pointer)
  try {
    return { result: work(), log: lines.join('') }
  } catch (error) {
    return { error, log: lines.join('') }
  } finally {
    bpf.setPrint(null)
    koffi.unregister(callback)
  }
}
