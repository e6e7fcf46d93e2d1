import { setTimeout as wait } from 'node:timers/promises'
import { inspect } from 'node:util'
import { endpoint, TproxyError } from '@tproxy/core'
import { describe, expect, test } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { acceptSocks5, granted, type Peer, scriptedProxy } from '../test/scripted-proxy.ts'
import { socksUpstream } from './upstream.ts'

const destination = endpoint('93.184.216.34', 443)

nothingGoesAstray()

async function failure(
  url: string | string[],
  options: { to?: string; timeoutMs?: number; signal?: AbortSignal } = {},
) {
  const { to = destination.address, timeoutMs = 400, signal = new AbortController().signal } = options
  const error = await socksUpstream(url, { timeoutMs })
    .connect(endpoint(to, 443), signal)
    .then(
      () => expect.unreachable('it connected'),
      (reason: unknown) => reason,
    )
  if (!(error instanceof TproxyError)) throw error
  expect(error.code).toBe('E_UPSTREAM')
  expect(inspect(error, { depth: 20, showHidden: true })).not.toMatch(/hunter2/)
  return error
}

/** What an upstream with credentials makes of a proxy that follows `script`; it must leave no socket open. */
async function against(
  script: (peer: Peer) => void | Promise<void>,
  scheme = 'socks5://jo:hunter2@',
): Promise<string> {
  await using proxy = await scriptedProxy(script)
  const { message } = await failure(`${scheme}127.0.0.1:${proxy.port}`)
  await proxy.idle()
  return message.replaceAll(String(proxy.port), 'PORT')
}

const refused = (code: number) => async (peer: Peer) => {
  await peer.read(4)
  peer.write([5, 0])
  await peer.read(10)
  peer.write([5, code, 0, 1, 0, 0, 0, 0, 0, 0])
}

describe('a SOCKS proxy that refuses', () => {
  test.each([
    [1, 'general failure at the proxy'],
    [2, "not allowed by the proxy's rules"],
    [3, 'network unreachable from the proxy'],
    [4, 'host unreachable from the proxy'],
    [5, 'connection refused by the destination'],
    [6, 'TTL expired on the way from the proxy'],
    [7, 'the proxy does not support CONNECT'],
    [8, 'the proxy does not support this address family'],
    [99, 'refused by the proxy with an unassigned code'],
  ])('with code %i is reported with step, destination and cause', async (code, text) => {
    expect(await against(refused(code))).toBe(
      `SOCKS5 handshake with socks5://127.0.0.1:PORT for 93.184.216.34:443: ${text}`,
    )
  })

  test('by SOCKS4 is reported likewise', async () => {
    const script = async (peer: Peer) => {
      await peer.read(9)
      peer.write([0, 91, 0, 0, 0, 0, 0, 0])
    }
    expect(await against(script, 'socks4://')).toMatch(/SOCKS4 handshake .*: rejected by the proxy/)
  })

  test('our way to authenticate is reported', async () => {
    expect(await against((peer) => peer.write([5, 255]))).toMatch(/accepts none of our ways/)
    expect(await against((peer) => peer.write([5, 255]), 'socks5://')).toMatch(
      /wants a user name and password/,
    )
  })

  test('our password is reported without showing it', async () => {
    const script = async (peer: Peer) => {
      await peer.read(4)
      peer.write([5, 2])
      await peer.read(12)
      peer.write([1, 1])
    }
    expect(await against(script)).toMatch(/does not accept the user name and password$/)
  })

  test('at a later hop is reported with the hop', async () => {
    await using proxy = await scriptedProxy(async (peer) => {
      await acceptSocks5(peer)
      peer.write([5, 0, 0, 1, 0, 0, 0, 0, 0, 0])
      await refused(5)(peer)
    })
    const { message } = await failure([`socks5://127.0.0.1:${proxy.port}`, 'socks5://jo:hunter2@192.0.2.2'])
    expect(message).toBe(
      'hop 2: SOCKS5 handshake with socks5://192.0.2.2:1080 for 93.184.216.34:443: connection refused by the destination',
    )
  })
})

test('a port nobody listens on is reported as the step that failed', async () => {
  const proxy = await scriptedProxy(() => {})
  const { port } = proxy
  await proxy[Symbol.asyncDispose]()
  expect((await failure(`socks5://jo:hunter2@127.0.0.1:${port}`)).message).toBe(
    `connect to socks5://127.0.0.1:${port}: connect ECONNREFUSED 127.0.0.1:${port}`,
  )
})

test('a SOCKS4 proxy is not even dialled for an IPv6 destination', async () => {
  await using proxy = await scriptedProxy(() => {})
  const { message } = await failure(`socks4://127.0.0.1:${proxy.port}`, { to: '2001:db8::1' })
  expect(message).toMatch(/cannot reach \[2001:db8::1\]:443: SOCKS4 has no IPv6 \(use a SOCKS5 proxy/)
  expect(proxy.received).toEqual([])
})

describe('a SOCKS proxy that lies', () => {
  const afterMethod = (bytes: readonly number[]) => async (peer: Peer) => {
    await peer.read(4)
    peer.write([5, 0])
    await peer.read(10)
    peer.write(bytes)
  }
  test.each<[string, (peer: Peer) => void | Promise<void>, RegExp]>([
    ['speaks HTTP', (peer) => peer.write('HTTP/1.1 400 Bad Request\r\n\r\n'), /not SOCKS5/],
    ['chooses GSSAPI', (peer) => peer.write([5, 1]), /not offered/],
    ['grants with another version', afterMethod([4, 0, 0, 1, 0, 0, 0, 0, 0, 0]), /malformed/],
    ['grants with an unknown address type', afterMethod([5, 0, 0, 9, 0, 0, 0, 0, 0, 0]), /malformed/],
    [
      'answers everything at once',
      (peer) => peer.write([5, 2, 1, 0, 5, 0, 0, 1, 0, 0]),
      /malformed|no answer/,
    ],
    ['sends noise', (peer) => peer.write(Buffer.alloc(70_000, 0xaa)), /not SOCKS5/],
    ['closes at once', (peer) => void peer.socket.end(), /proxy closed the connection/],
    ['resets', (peer) => void peer.socket.resetAndDestroy(), /ECONNRESET/],
  ])('and %s ends in an error', async (_, script, message) => {
    expect(await against(script)).toMatch(message)
  })

  test('and chooses user and password that were not offered is refused, and gets neither', async () => {
    await using proxy = await scriptedProxy((peer) => peer.write([5, 2, 1, 0, ...granted]))
    const { message } = await failure(`socks5://127.0.0.1:${proxy.port}`)
    expect(message).toMatch(/^SOCKS5 handshake .*: .* that was not offered: user name and password$/)
    await proxy.idle()
    expect(Buffer.concat(proxy.received.flat())).toEqual(Buffer.from([5, 1, 0]))
  })

  test('about SOCKS4 ends in an error', async () => {
    const version = (peer: Peer) => peer.write([7, 90, 0, 0, 0, 0, 0, 0])
    expect(await against(version, 'socks4://')).toMatch(/malformed/)
    expect(await against((peer) => peer.write('HTTP/1.1 400'), 'socks4://')).toMatch(/malformed/)
  })

  test('by closing after any number of bytes ends in an error', async () => {
    const bytes = [5, 2, 1, 0, 5, 0, 0, 1, 0, 0, 0, 0, 0]
    for (const [index] of bytes.entries()) {
      const message = await against(async (peer) => {
        await peer.read(4)
        peer.write(bytes.slice(0, Math.min(2, index)))
        if (index > 2) await peer.read(12)
        peer.write(bytes.slice(2, Math.min(4, index)))
        if (index > 4) await peer.read(10)
        peer.write(bytes.slice(4, index))
        peer.socket.end()
      })
      expect(message).toMatch(/proxy closed the connection/)
    }
  })
})

describe('a SOCKS proxy that is slow', () => {
  test('is given up after one deadline for all steps, and its socket closed', async () => {
    const started = performance.now()
    const dribble = async (peer: Peer) => {
      for (const byte of [5, 2, 1, 0, 5, 0, 0, 1]) {
        peer.write([byte])
        await wait(150)
      }
    }
    expect(await against(dribble)).toMatch(/no answer within 400 ms/)
    expect(performance.now() - started).toBeLessThan(900)
  })

  test('is given up when it says nothing at all', async () => {
    expect(await against(() => {})).toMatch(/SOCKS5 handshake .* no answer within 400 ms/)
  })
})

describe('aborting', () => {
  test('before the start opens nothing', async () => {
    await using proxy = await scriptedProxy(() => {})
    const { message } = await failure(`socks5://127.0.0.1:${proxy.port}`, { signal: AbortSignal.abort() })
    expect(message).toMatch(/aborted/)
    expect(proxy.received).toEqual([])
  })

  test('during the handshake closes the socket', async () => {
    await using proxy = await scriptedProxy(() => {})
    const { message } = await failure(`socks5://127.0.0.1:${proxy.port}`, { signal: AbortSignal.timeout(50) })
    expect(message).toMatch(/SOCKS5 handshake .*: aborted/)
    await proxy.idle()
  })

  test('once the tunnel is open changes nothing', async () => {
    await using proxy = await scriptedProxy(refused(0))
    const controller = new AbortController()
    const opening = socksUpstream(`socks5://jo:hunter2@127.0.0.1:${proxy.port}`).connect(
      destination,
      controller.signal,
    )
    const socket = await opening
    controller.abort()
    expect(socket.destroyed).toBe(false)
    socket.destroy()
    await proxy.idle()
  })
})
