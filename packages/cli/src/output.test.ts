import { execFileSync } from 'node:child_process'
import { closeSync, constants, mkdtempSync, openSync, readSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { Output } from './output.ts'

const pipes = [
  ['a pipe', 0],
  // As one is that a Node program shares.
  ['a pipe that somebody made non-blocking', constants.O_NONBLOCK],
] as const

test.each(pipes)(
  'what a reader that sleeps has missed of %s is counted where it is missing',
  async (_, flags) => {
    const directory = mkdtempSync(`${tmpdir()}/output-`)
    execFileSync('mkfifo', [`${directory}/pipe`])
    const reader = openSync(`${directory}/pipe`, constants.O_RDONLY | constants.O_NONBLOCK)
    const writer = openSync(`${directory}/pipe`, constants.O_WRONLY | flags)
    const output = new Output(writer as 1 | 2, (lines) => `${lines} lost`)
    const line = 'x'.repeat(999)
    for (let count = 0; count < 3000; count++) output.line(line)
    let read = ''
    const bytes = Buffer.alloc(1 << 16)
    const readOn = async (end: () => boolean) => {
      for (; !end(); await sleep(1))
        try {
          read += bytes.toString('latin1', 0, readSync(reader, bytes))
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error
        }
    }
    // Long enough for a pipe to be full for some time.
    await sleep(50)
    await readOn(() => read.endsWith(' lost\n'))
    output.line('after')
    let ended = false
    void output.end().then(() => {
      ended = true
    })
    await readOn(() => ended && read.endsWith('after\n'))
    closeSync(writer)
    closeSync(reader)
    rmSync(directory, { recursive: true })

    const lines = read.trimEnd().split('\n')
    const kept = lines.filter((each) => each === line).length
    expect(kept).toBeGreaterThan(900)
    expect(kept).toBeLessThan(1200)
    expect(lines.slice(kept)).toEqual([`${3000 - kept} lost`, 'after'])
  },
)
