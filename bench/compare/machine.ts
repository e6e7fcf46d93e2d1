import { execFileSync } from 'node:child_process'
import { cpus, loadavg, release, totalmem } from 'node:os'

const root = new URL('../../', import.meta.url).pathname

/** What a figure is of. */
export interface Machine {
  readonly cpu: string
  readonly cpus: number
  readonly memoryMb: number
  readonly kernel: string
  readonly node: string
  /** Of the last minute before it began. */
  readonly load: number
  /** Of the sources; `-dirty` if they are none. */
  readonly commit: string
  readonly at: string
}

/** What a run of the benchmarks writes itself is no change. */
const written = [':!bench/results', ':!bench/rules/results.json', ':!docs', ':!*.md']

function commit(): string {
  const git = (...args: string[]) => execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim()
  try {
    const changed = git('status', '--porcelain', '--', ':/', ...written)
    return git('rev-parse', '--short', 'HEAD') + (changed === '' ? '' : '-dirty')
  } catch {
    // Sources without their history.
    return 'unknown'
  }
}

export const machine = (): Machine => ({
  cpu: cpus()[0]?.model ?? 'unknown',
  cpus: cpus().length,
  memoryMb: Math.round(totalmem() / 2 ** 20),
  kernel: release(),
  node: process.version,
  load: Number(loadavg()[0]?.toFixed(2)),
  commit: commit(),
  at: new Date().toISOString(),
})

/** Of an installed Debian package. */
export function version(name: string): string | undefined {
  try {
    const format = '-f=${db:Status-Abbrev} ${Version}'
    const [status, found] = execFileSync('dpkg-query', ['-W', format, name], {
      encoding: 'utf8',
      stdio: 'pipe',
    })
      .trim()
      .split(/\s+/)
    return status === 'ii' ? found : undefined
  } catch {
    return undefined
  }
}
