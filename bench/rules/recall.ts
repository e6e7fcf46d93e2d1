// What a remembered verdict costs, by itself: BPF_PROG_RUN over 8192 destinations in turn, less what a program costs that asks
// nothing. That each is found, or none, is checked.
import { execFileSync } from 'node:child_process'
import { bpf, NativeError, runProgram, withLibbpfLog } from '../../packages/bpf/src/ffi.ts'
import {
  Action,
  MemoryBy,
  memoryKeySize,
  memorySize,
  writeMemory,
  writeMemoryKey,
} from '../../packages/bpf/src/layout.gen.ts'
import { compiled, printTable, writeResults } from './report.ts'

// Of two CPUs, the first takes most interrupts.
execFileSync('taskset', ['-pc', '1', `${process.pid}`])

const destinations = 8192
const turns = 8

const loaded = withLibbpfLog(() => {
  const opened = bpf.open('open', compiled('recall.bpf.c'), null)
  bpf.load('load', opened)
  return opened
})
if (!('result' in loaded)) throw new Error(loaded.log, { cause: loaded.error })
const object = loaded.result
const map = (name: string) => bpf.mapFd('find', bpf.findMap('find', object, name))
const [memories, found] = [map('memories'), map('.data.found')]

const zero = Buffer.alloc(4)
const holds = { until: 2n ** 63n, hits: 0n, generation: 0, action: Action.direct }
const value = writeMemory(Buffer.alloc(memorySize), holds)

function remember(by: number): void {
  for (let index = 0; index < destinations; index++) {
    const destination = Buffer.alloc(16)
    destination.writeUInt32LE(index)
    const port = by === MemoryBy.byDestination ? 443 : 0
    const key = writeMemoryKey(Buffer.alloc(memoryKeySize), { destination, uid: 0, rule: 0, port, by })
    bpf.updateElement('remember', memories, key, value, 0)
  }
}

function forget(): void {
  const key = Buffer.alloc(memoryKeySize)
  while (bpf.nextKey(memories, null, key) === 0) bpf.deleteElement(memories, key)
}

const frame = Buffer.alloc(64)
function run(program: string, rounds = 1): number {
  const fd = bpf.programFd('find', bpf.findProgram('find', object, program))
  try {
    return runProgram('run', fd, frame, { repeat: destinations * rounds }).nanoseconds
  } catch (error) {
    // What is pending for this thread ends a run early, even with all signals blocked (measured, Linux 6.18).
    if (error instanceof NativeError && error.errnoName === 'EINTR') return run(program, rounds)
    throw error
  }
}

/** The least of many, both in turn: what else runs here only adds. */
function net(program: string): number {
  const least = { empty: Infinity, asks: Infinity }
  for (let turn = 0; turn < turns; turn++) {
    least.empty = Math.min(least.empty, run('empty', 5))
    least.asks = Math.min(least.asks, run(program, 5))
  }
  return least.asks - least.empty
}

const cases = [
  { what: 'nothing is remembered', program: 'unused', expected: 0 },
  { what: 'not this one', program: 'destination', expected: 0 },
  {
    what: 'this one, by destination',
    program: 'destination',
    by: MemoryBy.byDestination,
    expected: destinations,
  },
  { what: 'this one, by address', program: 'address', by: MemoryBy.byAddress, expected: destinations },
]

const rows = cases.map(({ what, program, by, expected }) => {
  forget()
  if (by !== undefined) remember(by)
  bpf.updateElement('clear', found, zero, Buffer.alloc(4), 0)
  run(program)
  const count = Buffer.alloc(4)
  bpf.lookupElement(found, zero, count)
  if (count.readUInt32LE() !== expected)
    throw new Error(`${what}: ${count.readUInt32LE()} found, not ${expected}`)
  return { what, ns: net(program) }
})

printTable('A remembered verdict, net ns a connection, every one to another destination', rows)
writeResults('recall', rows)
