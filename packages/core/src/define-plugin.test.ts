import { describe, expect, test } from 'vitest'
import { z } from 'zod'
import { definePlugin } from './define-plugin.ts'
import { direct, drop } from './verdict.ts'

const office = definePlugin({
  name: 'office',
  options: z.object({
    url: z.string().startsWith('socks5://').describe('the URL of a SOCKS proxy'),
    ports: z.array(z.int().max(65_535)).default([25]).describe('a list of ports'),
  }),
  argument: 'url',
  create:
    ({ ports }) =>
    ({ destination }) =>
      ports.includes(destination.port) ? drop() : undefined,
})

const url = 'socks5://h'
const to = (port: number) => ({ destination: { port } }) as never

function problem(make: () => unknown): unknown {
  try {
    return make()
  } catch (error) {
    const { code, message } = error as { code: string; message: string }
    return `${code} ${message}`
  }
}

describe('a defined plugin', () => {
  test('has its name, and options with their defaults', () => {
    const plugin = office({ url })
    expect(plugin.name).toBe('office')
    expect(plugin(to(25))).toEqual(drop())
    expect(plugin(to(26))).toBeUndefined()
    expect(office({ url, ports: [26] })(to(26))).toEqual(drop())
  })

  test('takes them from the command line and from a file', () => {
    expect(office.load({ argument: url })(to(25))).toEqual(drop())
    expect(office.load({ argument: url, options: { ports: [26] } })(to(26))).toEqual(drop())
    expect(office.load({ options: { url } }).name).toBe('office')
  })

  test('may name its upstreams, and clean up', async () => {
    const upstream = { name: 'u', connect: () => Promise.reject(new Error('never')) }
    const log: string[] = []
    const plugin = definePlugin({
      name: 'whole',
      options: z.object({}),
      create: () => ({ upstreams: [upstream], decide: () => direct(), close: () => void log.push('closed') }),
    })({})
    expect(plugin.upstreams).toEqual([upstream])
    expect(plugin(to(1))).toEqual(direct())
    await plugin.close?.()
    expect(log).toEqual(['closed'])
  })
})

test.each([
  ['nothing', undefined],
  ['a number', 5],
  ['a promise', Promise.resolve(() => direct())],
  ['upstreams alone', { upstreams: [] }],
])('a definition that makes %s is refused when it does', (_, made) => {
  const wrong = definePlugin({ name: 'wrong', options: z.object({}), create: () => made as never })
  expect(problem(() => wrong({}))).toMatch(
    /^E_PLUGIN plugin wrong: create made nothing that decides \(return/,
  )
})

describe('options that are wrong', () => {
  test.each<[string, Record<string, unknown>, string]>([
    ['is missing', {}, 'option url of office is missing (url is the URL of a SOCKS proxy)'],
    [
      'is of another kind',
      { url, ports: 25 },
      'option ports of office: Invalid input: expected array, received number (ports is a list of ports)',
    ],
    [
      'is wrong inside',
      { url, ports: [25, 'x'] },
      'option ports[1] of office: Invalid input: expected number, received string (ports is a list of ports)',
    ],
    ['is unknown', { url, port: [25] }, 'office has no option port (did you mean ports?)'],
    [
      'is unknown, far from all',
      { url, colour: 1 },
      'office has no option colour (its options are url, ports)',
    ],
  ])('say which %s, and what it should be', (_, options, message) => {
    expect(problem(() => office.load({ options }))).toBe(`E_OPTION ${message}`)
    expect(problem(() => office(options as never))).toBe(`E_OPTION ${message}`)
  })

  test('are told all at once, and no value is repeated', () => {
    const message = problem(() =>
      office.load({ argument: 'http://jo:hunter2@h', options: { ports: 1, x: 2 } }),
    )
    expect(message).toMatch(/option url .*; option ports .*; office has no option x/)
    expect(message).not.toContain('hunter2')
  })

  test('may be an argument that is not taken, or that is given twice', () => {
    const none = definePlugin({ name: 'none', options: z.object({}), create: () => () => direct() })
    expect(problem(() => none.load({ argument: 'x' }))).toMatch(/^E_OPTION none takes no argument \(/)
    expect(problem(() => office.load({ argument: url, options: { url } }))).toMatch(
      /^E_OPTION option url of office is given twice/,
    )
  })
})
