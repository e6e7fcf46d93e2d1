import { once } from 'node:events'
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import { buffer } from 'node:stream/consumers'
import { setTimeout as wait } from 'node:timers/promises'
import { endpoint } from '@tproxy/core'
import { describe, expect, test, vi } from 'vitest'
import { acceptSocks5, granted, scriptedProxy } from '../test/scripted-proxy.ts'
import { socksUpstream } from './upstream.ts'

const destination = endpoint('93.184.216.34', 443)
const never = new AbortController().signal

async function open(url: string | string[], to = destination): Promise<Socket> {
  return (await socksUpstream(url, { timeoutMs: 2000 }).connect(to, never)) as Socket
}

describe('a SOCKS upstream', () => {
  test('shows where it is, and no credentials', () => {
    const upstream = socksUpstream(['socks5://jo:hunter2@[::1]:1081', 'socks4://jo@proxy.example'])
    expect(upstream.name).toBe('socks5://[::1]:1081 → socks4://proxy.example:1080')
    expect(upstream.address).toEqual({ host: '::1', port: 1081 })
    expect(JSON.stringify(upstream)).not.toMatch(/jo|hunter2/)
  })

  test('refuses a deadline that is none', () => {
    for (const timeoutMs of [0, -1, 1.5, Number.NaN, 2 ** 31])
      expect(() => socksUpstream('socks5://a', { timeoutMs })).toThrow(
        expect.objectContaining({ code: 'E_OPTION' }),
      )
  })

  test('carries bytes both ways, each half closing on its own', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      peer.socket.allowHalfOpen = true
      expect(await acceptSocks5(peer)).toEqual({ address: '93.184.216.34', port: 443 })
      peer.write(granted)
      expect(String(await peer.read(4))).toBe('ping')
      await once(peer.socket, 'end')
      peer.socket.end('pong')
    })
    const socket = await open(`socks5://127.0.0.1:${proxy.port}`)
    socket.end('ping')
    expect(String(await buffer(socket))).toBe('pong')
    await proxy.idle()
  })

  test('lets the client go on after the server has ended', async () => {
    const heard = Promise.withResolvers<string>()
    await using proxy = await scriptedProxy(async (peer) => {
      peer.socket.allowHalfOpen = true
      await acceptSocks5(peer)
      peer.socket.end(Buffer.from([...granted, ...Buffer.from('bye')]))
      heard.resolve(String(await peer.read(4)))
    })
    const socket = await open(`socks5://127.0.0.1:${proxy.port}`)
    expect(String(await buffer(socket.pipe(new PassThrough())))).toBe('bye')
    await wait(10)
    socket.end('late')
    expect(await heard.promise).toBe('late')
  })

  test('asks for IPv6 destinations by address', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await peer.read(3)
      peer.write([5, 0])
      const request = await peer.read(22)
      peer.write(granted)
      peer.socket.end(request)
    })
    const socket = await open(`socks5://127.0.0.1:${proxy.port}`, endpoint('2001:db8::1:2', 443))
    expect((await buffer(socket)).toString('hex')).toBe('0501000420010db800000000000000000001000201bb')
  })

  test('asks for IPv4-mapped destinations as IPv4', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      const { address } = await acceptSocks5(peer)
      peer.write(granted)
      peer.socket.end(address)
    })
    const mapped = { address: '::ffff:93.184.216.34', port: 443, family: 6 } as const
    expect(String(await buffer(await open(`socks5://127.0.0.1:${proxy.port}`, mapped)))).toBe('93.184.216.34')
  })

  test('asks for a host by its name when there is one, with SOCKS5 and 4a', async () => {
    const named = { ...endpoint('2001:db8::1', 443), name: 'shop.example' }
    await using five = await scriptedProxy(async (peer) => {
      await peer.read(3)
      peer.write([5, 0])
      expect((await peer.read(19)).toString('latin1')).toBe('\x05\x01\0\x03\x0cshop.example\x01\xbb')
      peer.write(granted)
      peer.socket.end('five')
    })
    expect(String(await buffer(await open(`socks5://127.0.0.1:${five.port}`, named)))).toBe('five')
    await using four = await scriptedProxy(async (peer) => {
      expect((await peer.read(22)).toString('latin1')).toBe('\x04\x01\x01\xbb\0\0\0\x01\0shop.example\0')
      peer.write([0, 90, 0, 0, 0, 0, 0, 0])
      peer.socket.end('four')
    })
    expect(String(await buffer(await open(`socks4://127.0.0.1:${four.port}`, named)))).toBe('four')
  })

  test('reaches a proxy that listens on IPv6', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await acceptSocks5(peer)
      peer.write(granted)
      peer.socket.end('six')
    }, '::1')
    expect(String(await buffer(await open(`socks5://[::1]:${proxy.port}`)))).toBe('six')
  })

  test('authenticates with user name and password', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      expect(await peer.read(4)).toEqual(Buffer.from([5, 2, 0, 2]))
      peer.write([5, 2])
      expect(String(await peer.read(9))).toBe('\x01\x02jo\x04p@ss')
      peer.write([1, 0])
      await peer.read(10)
      peer.write(granted)
      peer.socket.end('in')
    })
    expect(String(await buffer(await open(`socks5://jo:p%40ss@127.0.0.1:${proxy.port}`)))).toBe('in')
  })

  test('speaks SOCKS4, with a user name', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      expect(await peer.read(11)).toEqual(Buffer.from([4, 1, 1, 187, 93, 184, 216, 34, 0x6a, 0x6f, 0]))
      peer.write([0, 90, 0, 0, 0, 0, 0, 0])
      peer.socket.end('four')
    })
    expect(String(await buffer(await open(`socks4://jo@127.0.0.1:${proxy.port}`)))).toBe('four')
  })

  test('goes through a chain hop by hop, naming the next hop to each', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await peer.read(3)
      peer.write([5, 0])
      expect(String(await peer.read(21))).toBe('\x05\x01\x00\x03\x0esecond.example\x04\x38')
      peer.write(granted)
      await peer.read(9)
      peer.write([0, 90, 0, 0, 0, 0, 0, 0])
      expect(await acceptSocks5(peer)).toEqual({ address: '93.184.216.34', port: 443 })
      peer.write([...granted, ...Buffer.from('through')])
      peer.socket.end()
    })
    const urls = [`socks5://127.0.0.1:${proxy.port}`, 'socks4://second.example', 'socks5://192.0.2.3']
    expect(String(await buffer(await open(urls)))).toBe('through')
  })
})

const banner = 'SSH-2.0-OpenSSH_9.9\r\n'
const replies = {
  'IPv4 address': granted,
  'IPv6 address': [5, 0, 0, 4, ...Array<number>(18).fill(0)],
  'host name': [5, 0, 0, 3, 4, 0x68, 0x6f, 0x73, 0x74, 0, 80],
}

describe('bytes that arrive with the last reply', () => {
  for (const [kind, reply] of Object.entries(replies)) {
    const bytes = Buffer.from([...reply, ...Buffer.from(banner)])
    test(`survive every split of a reply with an ${kind} and a banner`, async () => {
      await using proxy = await scriptedProxy(async (peer) => {
        const { port: split } = await acceptSocks5(peer)
        peer.write(bytes.subarray(0, split))
        await wait(2)
        peer.socket.end(bytes.subarray(split))
      })
      const texts = await Promise.all(
        Array.from(bytes.keys(), async (split) => {
          const socket = await open(`socks5://127.0.0.1:${proxy.port}`, endpoint('192.0.2.1', split))
          return String(await buffer(socket))
        }),
      )
      expect(new Set(texts)).toEqual(new Set([banner]))
    })
  }

  test.each([
    ['as data events', (socket: Socket) => buffer(socket)],
    ['by piping', (socket: Socket) => buffer(socket.pipe(new PassThrough()))],
  ])('are kept, end included, for whoever reads late (%s)', async (_, read) => {
    await using proxy = await scriptedProxy(async (peer) => {
      await acceptSocks5(peer)
      peer.socket.end(Buffer.from([...granted, ...Buffer.from(banner)]))
    })
    const socket = await open(`socks5://127.0.0.1:${proxy.port}`)
    await wait(30)
    expect(socket.readableLength).toBe(banner.length)
    expect(String(await read(socket))).toBe(banner)
  })

  test('are kept by SOCKS4 too, byte for byte', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await peer.read(9)
      for (const byte of Buffer.from([0, 90, 0, 0, 0, 0, 0, 0, ...Buffer.from(banner)])) {
        peer.write([byte])
        await wait(1)
      }
      peer.socket.end()
    })
    expect(String(await buffer(await open(`socks4://127.0.0.1:${proxy.port}`)))).toBe(banner)
  })

  test('survive on a thousand short connections', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await acceptSocks5(peer)
      peer.socket.end(Buffer.from([...granted, ...Buffer.from(banner)]))
    })
    for (let round = 0; round < 20; round++) {
      const texts = await Promise.all(
        Array.from({ length: 50 }, async () => {
          const socket = await open(`socks5://127.0.0.1:${proxy.port}`)
          if (round % 2) await wait(round)
          const text = String(await buffer(socket))
          socket.destroy()
          return text
        }),
      )
      expect(new Set(texts)).toEqual(new Set([banner]))
    }
  })
})

test('no timer is left when the tunnel is open', async () => {
  await using proxy = await scriptedProxy(async (peer) => {
    await acceptSocks5(peer)
    peer.write(granted)
  })
  const timers = vi.spyOn(globalThis, 'setTimeout')
  const socket = await open(`socks5://127.0.0.1:${proxy.port}`)
  await wait(10)
  const set = timers.mock.results.map(({ value }) => value as { _destroyed: boolean; _idleTimeout: number })
  timers.mockRestore()
  expect(set.length).toBeGreaterThanOrEqual(2)
  expect(set.filter((timer) => !timer._destroyed)).toEqual([])
  socket.destroy()
})
