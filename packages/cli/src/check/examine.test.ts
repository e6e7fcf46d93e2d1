import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { openConfig } from '../config/open.ts'
import { examine } from './examine.ts'

beforeEach(() => {
  for (const name of ['ALL_PROXY', 'HTTPS_PROXY', 'HTTP_PROXY'])
    for (const each of [name, name.toLowerCase()]) vi.stubEnv(each, '')
})
afterEach(() => vi.unstubAllEnvs())

const remedies = async (text: string) =>
  (await examine(openConfig(text), '/f.yaml')).map(({ message, remedy }) => [message, remedy])

it('says of routing that cannot be that it is not usable', async () => {
  const said = async (text: string) => (await remedies(text))[0]?.[0]
  expect(await said('mark: 5')).toBe('routing mark 0x5 is not usable')
  expect(await said('table: 254')).toBe('routing table 254 is not usable')
  expect(await said('priority: 0')).toBe('routing rule priority 0 is not usable')
})

it('says of an upstream of this host where nobody listens what becomes of connections, and why it is this one', async () => {
  const refused = 'connections for it are refused until somebody does'
  expect(await remedies('plugins: [socks=socks5://127.0.0.1:1, http=http://127.0.0.1:1]')).toEqual([
    ['upstream of socks: nobody listens at 127.0.0.1:1 now', refused],
    ['upstream of http: nobody listens at 127.0.0.1:1 now', refused],
  ])
  const why = (variable: string) =>
    `${refused}; it has no argument, and no ${variable} is set, which sudo removes: sudo --preserve-env=${variable}`
  expect(await remedies('plugins: [socks, { name: http }]')).toEqual([
    ['upstream of socks: nobody listens at 127.0.0.1:1080 now', why('ALL_PROXY')],
    ['upstream of http: nobody listens at 127.0.0.1:3128 now', why('HTTPS_PROXY')],
  ])
  vi.stubEnv('all_proxy', 'socks5://127.0.0.1:1')
  expect(await remedies('plugins: [socks]')).toEqual([
    ['upstream of socks: nobody listens at 127.0.0.1:1 now', refused],
  ])
})
