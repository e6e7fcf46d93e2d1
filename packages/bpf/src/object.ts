import { bpf, type NativeError, type Pointer, withLibbpfLog, withoutSignals } from './ffi.ts'

/** `enum bpf_attach_type` of include/uapi/linux/bpf.h: the hooks of an interface. */
export const Tcx = { ingress: 46, egress: 47 } as const

interface LoadOptions {
  /** What is constant from load on. */
  readonly settings?: Buffer
  /** Maps that are those pinned in a directory, or are pinned there now. */
  readonly pinned?: { readonly directory: string; readonly maps: readonly string[] } | undefined
  /** Maps of another object, by name, that take the place of its own. */
  readonly shared?: Readonly<Record<string, number>>
  /** Which of its programs are loaded; all, if it is not said. The verifier takes its time for each. */
  readonly loads?: (program: string) => boolean
}

/** A file of BPF programs and maps, loaded. */
export class LoadedObject {
  readonly #object: Pointer
  readonly #maps = new Map<string, number>()
  readonly #programs = new Map<string, number>()
  #isClosed = false

  private constructor(object: Pointer) {
    this.#object = object
  }

  /** Opens, configures and loads. Throws a {@link LoadError}. */
  static load(
    what: string,
    path: string,
    { settings, pinned, shared = {}, loads }: LoadOptions,
  ): LoadedObject {
    const outcome = withLibbpfLog(() => {
      const object = bpf.open(`open ${path}`, path, null)
      const find = (name: string) => bpf.findMap(`find map ${name}`, object, name)
      try {
        if (settings !== undefined)
          bpf.setInitialValue('configure', find('.rodata.settings'), settings, settings.length)
        for (const name of pinned?.maps ?? [])
          bpf.setPinPath(`pin ${name}`, find(name), `${pinned?.directory}/${name}`)
        for (const [name, fd] of Object.entries(shared)) bpf.reuseMap(`share map ${name}`, find(name), fd)
        for (const program of each(object, bpf.nextProgram))
          if (loads?.(bpf.programName(program)) === false)
            bpf.setAutoload('leave out a program', program, false)
        withoutSignals(() => bpf.load(`load ${what}`, object))
        return new LoadedObject(object)
      } catch (error) {
        bpf.close(object)
        throw error
      }
    })
    if ('result' in outcome) return outcome.result
    throw new LoadError(outcome.error as NativeError, outcome.log)
  }

  /** The file descriptor of a map. */
  map(name: string): number {
    this.#requireOpen()
    return cached(this.#maps, name, () =>
      bpf.mapFd(`map ${name}`, bpf.findMap(`find map ${name}`, this.#object, name)),
    )
  }

  /** The descriptors of all maps that change while it runs, by name: for another object to share. */
  get maps(): Readonly<Record<string, number>> {
    const names = Array.from(each(this.#object, bpf.nextMap), (map) => bpf.mapName(map))
    return Object.fromEntries(
      names.filter((name) => !name.startsWith('.rodata')).map((name) => [name, this.map(name)]),
    )
  }

  /** The file descriptor of a program. */
  program(name: string): number {
    this.#requireOpen()
    return cached(this.#programs, name, () =>
      bpf.programFd(`program ${name}`, bpf.findProgram(`find program ${name}`, this.#object, name)),
    )
  }

  update(map: string, key: Buffer, value: Buffer): void {
    bpf.updateElement(`update map ${map}`, this.map(map), key, value, 0)
  }

  /** Reads into `value`; false when there is nothing. */
  lookup(map: string, key: Buffer, value: Buffer): boolean {
    return bpf.lookupElement(this.map(map), key, value) === 0
  }

  /** Values of an array, `size` bytes each, from one index on: by one system call. */
  range(map: string, first: number, count: number, size: number): Buffer {
    const [keys, values] = [Buffer.alloc(4 * count), Buffer.alloc(size * count)]
    // The kernel begins behind a key.
    const behind = first === 0 ? null : u32(first - 1)
    bpf.lookupBatch(`read map ${map}`, this.map(map), behind, Buffer.alloc(4), keys, values, u32(count), null)
    return values
  }

  /** The other way: puts these there. */
  putRange(map: string, first: number, count: number, values: Buffer): void {
    const keys = Buffer.alloc(4 * count)
    for (let at = 0; at < count; at++) keys.writeUInt32LE(first + at, 4 * at)
    bpf.updateBatch(`update map ${map}`, this.map(map), keys, values, u32(count), null)
  }

  delete(map: string, key: Buffer): void {
    bpf.deleteElement(this.map(map), key)
  }

  /** All keys of a map; each is valid until the next. */
  *keys(map: string, size: number): Generator<Buffer> {
    let [key, next] = [Buffer.alloc(size), Buffer.alloc(size)]
    for (let at: Buffer | null = null; bpf.nextKey(this.map(map), at, next) === 0; at = key) {
      ;[key, next] = [next, key]
      yield key
    }
  }

  /** Sums a map of one counter for each processor, by the names of its enum. */
  counters(map: string, names: Readonly<Record<string, number>>): Record<string, bigint> {
    const cpus = bpf.possibleCpus('count processors')
    const [key, values] = [Buffer.alloc(4), Buffer.alloc(8 * cpus)]
    const sum = (index: number) => {
      key.writeUInt32LE(index)
      bpf.lookupElement(this.map(map), key, values)
      let total = 0n
      for (let cpu = 0; cpu < cpus; cpu++) total += values.readBigUInt64LE(cpu * 8)
      return total
    }
    const entries = Object.entries(names).filter(([name]) => name !== 'max')
    return Object.fromEntries(entries.map(([name, index]) => [name, sum(index)]))
  }

  /** Then nothing of it can be asked for any more: the numbers of its descriptors are soon another's. */
  close(): void {
    this.#isClosed = true
    this.#maps.clear()
    this.#programs.clear()
    bpf.close(this.#object)
  }

  #requireOpen(): void {
    if (this.#isClosed) throw new Error('the BPF programs are unloaded')
  }
}

function* each(
  object: Pointer,
  next: (object: Pointer, behind: Pointer | null) => Pointer | null,
): Generator<Pointer> {
  for (let at = next(object, null); at; at = next(object, at)) yield at
}

/** A key, or a value, that is a number. */
export function u32(value: number): Buffer {
  const buffer = Buffer.alloc(4)
  buffer.writeUInt32LE(value)
  return buffer
}

function cached(known: Map<string, number>, name: string, find: () => number): number {
  let fd = known.get(name)
  if (fd === undefined) {
    fd = find()
    known.set(name, fd)
  }
  return fd
}

/** Programs did not load. */
export class LoadError extends Error {
  override readonly name = 'LoadError'
  readonly errno: number
  /** All that libbpf and the verifier said; not enumerable, for it is long. */
  declare readonly log: string

  constructor(cause: NativeError, log: string) {
    const lines = log.split('\n').filter((line) => line.trim() !== '')
    // The verifier's complaint stands above its closing statistics; libbpf's own lines begin with its name.
    const end = lines.findIndex((line) => line.startsWith('processed '))
    const telling = end > 0 ? lines[end - 1] : lines.find((line) => line.startsWith('libbpf: '))
    super(`${cause.message}${telling === undefined ? '' : `: ${telling.replace(/^libbpf: /, '')}`}`, {
      cause,
    })
    this.errno = cause.errno
    Object.defineProperty(this, 'log', { value: log, enumerable: false })
  }
}
