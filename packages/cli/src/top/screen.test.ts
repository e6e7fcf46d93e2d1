import { Writable } from 'node:stream'
import { expect, it, vi } from 'vitest'
import { showScreen } from './screen.ts'

it('leaves the terminal as it was, which meanwhile does not break lines that are wider than they are long', async () => {
  let written = ''
  const stdout = new Writable({
    write(chunk, _encoding, done) {
      written += chunk
      done()
    },
  })
  vi.spyOn(process, 'stdout', 'get').mockReturnValue(stdout as typeof process.stdout)
  const stdin = Object.assign(process.stdin, { setRawMode: () => process.stdin })
  const form = { form: 'top', intervalMs: 100, count: 1, sort: 'down', json: false } as const
  // Nobody has this number.
  const shown = showScreen({ ...form, pid: 2 ** 30 }, new Promise(() => {}))
  await expect(shown).rejects.toMatchObject({ code: 'E_OPTION' })
  vi.restoreAllMocks()
  stdin.pause()
  const switched = written.split('\u001b[?').slice(1)
  const entering = switched.filter((code) => /^(25|7)l/.test(code))
  const leaving = switched.filter((code) => /^(25|7)h/.test(code))
  expect([entering, leaving].map((codes) => codes.map((code) => code.replace(/[hl][^]*/, '')))).toEqual([
    ['25', '7'],
    ['7', '25'],
  ])
  expect(switched.at(-1)).toMatch(/^1049l/)
})
