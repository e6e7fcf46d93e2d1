import { rmSync } from 'node:fs'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { type Dialled, dial, holdDial } from '../rig/client.ts'
import { shortConnections } from '../rig/crowd.ts'
import { fixture } from '../rig/fixture.ts'
import type { Program } from '../rig/host.ts'
import { chunks, digest } from '../rig/stream.ts'
import type { Random } from './random.ts'
import type { Setting } from './setting.ts'
import { addressOf, type Way } from './ways.ts'

/** What became of a program. */
export interface Outcome {
  /** What it carried, as far as is known. */
  readonly bytes: number
  /** Why it did not get to its end, which a fault may explain. */
  readonly broken?: string
  /** What no fault explains. */
  readonly wrong?: string
  /** Whether it was broken by a clean end in the middle, as only an upstream, or a fastpath that dies, makes one. */
  readonly isEnd?: boolean
  /** The source port, of a program with one connection. */
  readonly port?: number
}

export interface Run {
  readonly setting: Setting
  readonly random: Random
  readonly way: Way
  readonly family: 4 | 6
  /** Factor for everything that takes time by itself. */
  readonly pace: number
}

export interface Kind {
  readonly name: string
  /** How often, beside the others. */
  readonly weight: number
  readonly ways: readonly Way[]
  readonly run: (run: Run) => Promise<Outcome>
}

/** No program takes as long, whatever happens around it. */
const deadlineMs = 60_000

const every: readonly Way[] = ['direct', 'changed', 'local', 'remote', 'http', 'dante', 'outside']
/** Those that end one direction without the other. */
const halfClosing: readonly Way[] = ['direct', 'changed', 'outside']
/** microsocks waits for itself once both directions are full. */
const bothWays: readonly Way[] = ['direct', 'changed', 'http', 'outside']

const MB = 1_000_000
const address = ({ way, family }: Run) => addressOf(way, family)
const url = (run: Run, path: string, port = 8080) =>
  `http://${run.family === 6 ? `[${address(run)}]` : address(run)}:${port}/${path}`

/** Waits for its end, but not for ever. */
async function finish(program: Program): Promise<{ code: number | null; stderr: string; stuck: boolean }> {
  let stuck = false
  const timer = setTimeout(() => {
    stuck = true
    program.kill('SIGKILL')
  }, deadlineMs)
  const { code, stderr } = await program.exited
  clearTimeout(timer)
  return { code, stderr, stuck }
}

const stuck = (bytes: number): Outcome => ({
  bytes,
  wrong: `no end and no error within ${deadlineMs / 1000} s`,
})

/** Compares what a program receives, as it comes, with what it should. */
function receiving(program: Program, size: number): { bytes: number; differs: boolean } {
  const seen = { bytes: 0, differs: false }
  const expected = chunks(size)
  let left: Buffer = Buffer.alloc(0)
  program.child.stdout?.removeAllListeners('data')
  program.child.stdout?.setEncoding('latin1').on('data', (text: string) => {
    let part = Buffer.from(text, 'latin1')
    seen.bytes += part.length
    while (part.length > 0 && !seen.differs) {
      if (left.length === 0) {
        const next = expected.next()
        if (next.done) seen.differs = true
        else left = next.value
      }
      const length = Math.min(left.length, part.length)
      seen.differs ||= !part.subarray(0, length).equals(left.subarray(0, length))
      left = left.subarray(length)
      part = part.subarray(length)
    }
  })
  return seen
}

/** A stream that has to arrive whole, or break off. */
async function download(program: Program, size: number): Promise<Outcome> {
  const seen = receiving(program, size)
  const end = await finish(program)
  const { bytes } = seen
  if (seen.differs) return { bytes, wrong: `byte ${bytes} or earlier of ${size} is not what was sent` }
  if (end.stuck) return stuck(bytes)
  if (end.code === 0 && bytes === size) return { bytes }
  // ssh ends with the command's code once it has that, even if the connection breaks off before the rest of the output: sshd
  // tells it as soon as the command has ended. But then it says so (seen without a proxy: 18 of 160 that were cut near the end).
  if (end.code === 0 && !/^(Connection to|Read from remote|client_loop:) /m.test(end.stderr))
    return { bytes, wrong: `${bytes} of ${size} bytes, and a clean end` }
  return { bytes, ...brokenOff(end, ` after ${bytes} of ${size}`) }
}

/** Bytes that are not those that were sent, by the words of programs that have a check of their own. */
const corrupt = /corrupt|bad packet length|hash mismatch|sha1 mismatch|inflate returned|did not match/i

/** Of a program that says by itself why it did not get to its end. */
function brokenOff(
  { code, stderr }: { code: number | null; stderr: string },
  where = '',
): Pick<Outcome, 'broken' | 'wrong' | 'isEnd'> {
  const text = `exit ${code}${where}: ${stderr.trim()}`
  // curl: CURLE_PARTIAL_FILE and CURLE_GOT_NOTHING.
  const isEnd = /^curl: \((18|52)\)/m.test(stderr)
  return corrupt.test(stderr) ? { wrong: text } : { broken: text, isEnd }
}

/** A stream whose receiver tells its SHA-256. */
async function upload(program: Program, size: number): Promise<Outcome> {
  const sent = pipeline(Readable.from(chunks(size)), program.child.stdin as NodeJS.WritableStream).catch(
    () => {},
  )
  const end = await finish(program)
  await sent
  const told = /[0-9a-f]{64}/.exec(program.stdout)?.[0]
  if (end.stuck) return stuck(0)
  if (told !== undefined && told !== digest(size) && end.code === 0)
    return { bytes: 0, wrong: `the server got something else than these ${size} bytes` }
  if (end.code === 0 && told !== undefined) return { bytes: size }
  return { bytes: 0, ...brokenOff(end) }
}

function echoed(result: Dialled, size: number): Outcome {
  const { received: bytes, port, end, equal } = result
  if (!equal) return { bytes, port, wrong: `of ${bytes} bytes not all are those that were sent` }
  if (end === 'timeout') return { bytes, port, wrong: `nothing came for ${deadlineMs / 1000} s` }
  // The echo ends after the last byte, which we do not wait for: an end in order before it cuts the stream off.
  if (end === 'fin') return { bytes, port, broken: `a clean end after ${bytes} of ${size}`, isEnd: true }
  return end === 'closed'
    ? { bytes: bytes * 2, port }
    : { bytes, port, broken: `${end} after ${bytes} of ${size}` }
}

const curl = (run: Run, ...args: string[]) => run.setting.world.client.spawn('curl', ['-sSf', ...args])

function ssh(run: Run, command: string): Program {
  const { directory, world } = run.setting
  const options = [
    'BatchMode=yes',
    'StrictHostKeyChecking=no',
    'UserKnownHostsFile=/dev/null',
    'LogLevel=ERROR',
  ]
  return world.client.spawn('ssh', [
    ...['-F', 'none', '-i', `${directory}/key`, '-p', '2222'],
    ...options.flatMap((option) => ['-o', option]),
    ...[`root@${address(run)}`, command],
  ])
}

export const kinds: readonly Kind[] = [
  {
    name: 'curl down',
    weight: 6,
    ways: every,
    async run(run) {
      const size = run.random.size(1000, 30 * MB * run.pace)
      await using program = curl(run, url(run, `stream/${size}`))
      return await download(program, size)
    },
  },
  {
    name: 'curl down, slowly',
    weight: 2,
    ways: every,
    async run(run) {
      const size = Math.floor(run.random.between(1, 5) * MB * run.pace)
      await using program = curl(run, '--limit-rate', '800k', url(run, `stream/${size}`))
      return await download(program, size)
    },
  },
  {
    name: 'curl up',
    weight: 4,
    ways: every,
    async run(run) {
      const size = run.random.size(1000, 30 * MB * run.pace)
      const port = run.random.pick([80, 8080])
      await using program = curl(run, '-H', 'Expect:', '-T', '-', url(run, 'upload', port))
      return await upload(program, size)
    },
  },
  {
    name: 'ssh down',
    weight: 2,
    ways: every,
    async run(run) {
      const size = run.random.size(1000, 10 * MB * run.pace)
      const zero = '0'.repeat(32)
      const command = `head -c ${size} /dev/zero | openssl enc -aes-128-ctr -nosalt -K ${zero} -iv ${zero}`
      await using program = ssh(run, command)
      program.child.stdin?.end()
      return await download(program, size)
    },
  },
  {
    name: 'ssh up',
    weight: 1,
    ways: every,
    async run(run) {
      await using program = ssh(run, 'sha256sum')
      return await upload(program, run.random.size(1000, 10 * MB * run.pace))
    },
  },
  {
    name: 'git clone',
    weight: 2,
    ways: every,
    async run(run) {
      const { world, directory, head } = run.setting
      const tree = `${directory}/clone-${run.random.next()}`
      await using program = world.client.spawn('sh', [
        ...[
          '-ec',
          'git clone -q "$0" "$1"; git -C "$1" fsck --full >/dev/null || exit 9; git -C "$1" rev-parse HEAD',
        ],
        ...[url(run, 'git/soak.git'), tree],
      ])
      const end = await finish(program)
      rmSync(tree, { recursive: true, force: true })
      if (end.stuck) return stuck(0)
      if (end.code === 9) return { bytes: 0, wrong: `the clone is damaged: ${end.stderr.trim()}` }
      if (end.code !== 0) return { bytes: 0, ...brokenOff(end) }
      return program.stdout.trim() === head
        ? { bytes: 2 << 20 }
        : { bytes: 0, wrong: `the clone is at ${program.stdout.trim()}` }
    },
  },
  {
    name: 'wrk',
    weight: 2,
    ways: every,
    async run(run) {
      const [seconds, size] = [Math.ceil(run.random.between(1, 5) * run.pace), run.random.size(100, 100_000)]
      await using program = run.setting.world.client.spawn('wrk', [
        ...['-t', '1', '-c', '8', '-d', `${seconds}s`, '--timeout', '30s', url(run, `stream/${size}`)],
      ])
      const end = await finish(program)
      if (end.stuck) return stuck(0)
      const errors = /Socket errors: .*|Non-2xx.*/.exec(program.stdout)?.[0]
      const requests = Number(/(\d+) requests in/.exec(program.stdout)?.[1] ?? 0)
      // Who hears nothing for all its time has nothing to complain of.
      return { bytes: requests * size, ...(errors !== undefined && { broken: errors }) }
    },
  },
  {
    name: 'short connections',
    weight: 2,
    ways: every,
    async run(run) {
      const count = Math.ceil(300 * run.pace)
      const options = { address: address(run), port: 7, count, parallel: 10 }
      const { succeeded, failed, unanswered, error } = await shortConnections(
        run.setting.world.client,
        options,
      )
      return succeeded === count
        ? { bytes: 2 * count }
        : { bytes: 2 * succeeded, broken: `${failed} failed, ${unanswered} unanswered: ${error}` }
    },
  },
  {
    name: 'both ways at once',
    weight: 4,
    ways: bothWays,
    async run(run) {
      const size = run.random.size(1000, 20 * MB * run.pace)
      const options = { echo: size, random: run.random.chance(0.5), timeout: deadlineMs }
      return echoed(await dial(run.setting.world.client, [address(run), 7], options), size)
    },
  },
  {
    name: 'one way, then the other',
    weight: 2,
    ways: halfClosing,
    async run(run) {
      const size = run.random.size(1000, 10 * MB * run.pace)
      const client = await fixture('client')
      const args = ['--pipe', '--timeout', `${deadlineMs}`, address(run), '9']
      await using program = run.setting.world.client.spawn(client, args)
      const outcome = await upload(program, size)
      // It tells a reset by its words only.
      const { port, end } = /\{.*\}/.test(program.stderr) ? JSON.parse(program.stderr) : {}
      const reset = outcome.broken !== undefined && end === 'fin'
      return { ...outcome, port, ...(reset && { broken: 'a clean end without an answer', isEnd: true }) }
    },
  },
  {
    name: 'idle',
    weight: 3,
    ways: every,
    async run(run) {
      const size = 20_000
      const options = { echo: size, timeout: deadlineMs }
      const held = await holdDial(run.setting.world.client, [address(run), 7], options).catch(
        (error: Error) => error.message,
      )
      if (typeof held === 'string') return { bytes: 0, broken: held }
      await sleep(run.random.between(1000, 20_000) * run.pace)
      return echoed(await held.release(), size)
    },
  },
  {
    name: 'vanishing',
    weight: 3,
    ways: bothWays,
    async run(run) {
      // More than goes by before it is killed, past the proxy too.
      const args = ['--echo', `${10_000 * MB}`, '--random', '--timeout', `${deadlineMs}`, address(run), '7']
      await using program = run.setting.world.client.spawn(await fixture('client'), args)
      await Promise.race([sleep(run.random.between(0, 1500)), program.exited])
      if (program.child.exitCode === null) return await program.stop('SIGKILL').then(() => ({ bytes: 0 }))
      const isOther = /"equal":false/.test(program.stdout)
      return { bytes: 0, [isOther ? 'wrong' : 'broken']: program.stdout }
    },
  },
]
