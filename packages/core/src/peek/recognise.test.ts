import { once } from 'node:events'
import { Duplex } from 'node:stream'
import { connect as connectTls } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { hostName } from './host-name.ts'
import { recognise } from './peek.ts'

/** The first flight of a real TLS client. */
async function clientHello(servername: string | undefined): Promise<Buffer> {
  const wire: Duplex = new Duplex({
    read() {},
    write(chunk, _, done) {
      wire.emit('sent', chunk)
      done()
    },
  })
  const sent = once(wire, 'sent') as Promise<[Buffer]>
  const client = connectTls({ socket: wire, ...(servername !== undefined && { servername }) })
  client.on('error', () => {})
  const [bytes] = await sent
  client.destroy()
  return bytes
}

/** The same message in records of at most `size` bytes each. */
function inRecords(hello: Buffer, size: number): Buffer {
  const message = hello.subarray(5)
  const parts = Array.from({ length: Math.ceil(message.length / size) }, (_, index) =>
    message.subarray(index * size, (index + 1) * size),
  )
  return Buffer.concat(
    parts.flatMap((part) => [Buffer.from([22, 3, 1, part.length >> 8, part.length & 255]), part]),
  )
}

const hello = await clientHello('Www.Example.ORG')
const request = 'GET / HTTP/1.1\r\nUser-Agent: x\r\nHOST:  Example.org:8080 \r\n\r\n'

describe('a ClientHello', () => {
  test('gives the server name, in lower case', () => {
    expect(recognise(hello)).toEqual({ protocol: 'tls', name: 'www.example.org', more: false })
  })

  test('without a server name is TLS all the same', async () => {
    expect(recognise(await clientHello(undefined))).toEqual({ protocol: 'tls', name: undefined, more: false })
  })

  test.each([1, 2, 3, 4, 50, 1000])('may come in records of %i bytes', (size) => {
    expect(recognise(inRecords(hello, size))).toEqual({
      protocol: 'tls',
      name: 'www.example.org',
      more: false,
    })
  })

  test('wants more at every split, and never says anything else than in the end', () => {
    for (const bytes of [hello, inRecords(hello, 100)])
      for (let length = 0; length < bytes.length; length++) {
        const { protocol, name, more } = recognise(bytes.subarray(0, length))
        expect([undefined, 'tls']).toContain(protocol)
        expect({ name, more }).toEqual({ name: undefined, more: true })
      }
  })

  const changeCipherSpec = Buffer.from([20, 3, 3, 0, 1, 1])
  const earlyData = Buffer.concat([Buffer.from([23, 3, 3, 0, 20]), Buffer.alloc(20, 0xaa)])
  test.each([
    ['its change of cipher', [changeCipherSpec]],
    ['early data', [earlyData]],
    ['both', [changeCipherSpec, earlyData]],
    ['what is no record', [Buffer.from('GET /')]],
  ])('is read, whatever comes behind it in the same read: %s', (_, behind) => {
    for (const sent of [hello, inRecords(hello, 100)])
      for (let length = 1; length <= Buffer.concat(behind).length; length++)
        expect(recognise(Buffer.concat([sent, Buffer.concat(behind).subarray(0, length)]))).toEqual({
          protocol: 'tls',
          name: 'www.example.org',
          more: false,
        })
  })

  test('that another record interrupts is not waited for', () => {
    const cut = inRecords(hello, 100).subarray(0, 105)
    expect(recognise(Buffer.concat([cut, earlyData]))).toEqual({ protocol: 'tls', more: false })
  })

  test('that another handshake message pretends to be is none', () => {
    expect(recognise(Buffer.from([22, 3, 3, 0, 4, 2, 0, 0, 0]))).toEqual({ protocol: undefined, more: false })
  })

  test('with any bytes changed neither throws nor gives a name that is none', () => {
    const change = fc.record({ at: fc.nat(hello.length - 1), to: fc.nat(255) })
    fc.assert(
      fc.property(fc.array(change, { minLength: 1, maxLength: 8 }), fc.nat(hello.length), (changes, cut) => {
        const bytes = Buffer.from(hello)
        for (const { at, to } of changes) bytes[at] = to
        // What lies behind in memory is not ours to read.
        const { name } = recognise(bytes.subarray(0, cut))
        if (name !== undefined) expect(hostName(name)).toBe(name)
      }),
      { numRuns: 3000 },
    )
  })
})

describe('an HTTP request', () => {
  const http = (text: string) => recognise(Buffer.from(text, 'latin1'))

  test('gives its host, in lower case and without the port', () => {
    expect(http(request)).toEqual({ protocol: 'http', name: 'example.org', more: false })
    expect(http('POST /x HTTP/1.0\nHost: a.b\n\nbody')).toMatchObject({ protocol: 'http', name: 'a.b' })
  })

  test('wants more at every split', () => {
    for (let length = 0; length < request.length; length++)
      expect(http(request.slice(0, length))).toMatchObject({ more: true })
    expect(http('GE')).toMatchObject({ protocol: undefined })
    expect(http('GET / HTTP/1.1\r\nHo')).toMatchObject({ protocol: 'http' })
  })

  test.each([
    ['no Host', 'GET / HTTP/1.0\r\n\r\n'],
    ['two Hosts', 'GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n\r\n'],
    ['an address', 'GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n'],
    ['an IPv6 address', 'GET / HTTP/1.1\r\nHost: [2001:db8::1]:80\r\n\r\n'],
    ['a request for a proxy', 'GET http://a.example/ HTTP/1.1\r\nHost: a.example\r\n\r\n'],
    ['a tunnel through a proxy', 'CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n'],
    ['nonsense', 'GET / HTTP/1.1\r\nHost: a b/c\r\n\r\n'],
  ])('with %s is HTTP without a name', (_, text) => {
    expect(http(text)).toEqual({ protocol: 'http', name: undefined, more: false })
  })

  test.each([
    'EHLO a.example\r\n',
    '*1\r\n$4\r\nPING\r\n',
    '\0\0\0\x08\x04\xd2\x16/',
    'PRI * HTTP/2.0\r\n\r\n',
    ' ',
  ])('is not what %j begins', (text) => {
    expect(http(text)).toEqual({ protocol: undefined, more: false })
  })

  test.each([' ', '\t', '\r', '\v', ':', '\r\nHost: a'])(
    'takes no time when its host has many %j',
    (text) => {
      const start = performance.now()
      http(`GET / HTTP/1.1\r\nHost: a${text.repeat(16_000 / text.length)}b\r\n\r\n`)
      expect(performance.now() - start).toBeLessThan(200)
    },
  )

  test('never takes long or throws, whatever it is', () => {
    const word = fc.constantFrom(
      'GET',
      ' ',
      '/',
      'HTTP/1.',
      '1',
      '\r',
      '\n',
      'Host',
      ':',
      'a',
      '.',
      'a'.repeat(4000),
    )
    fc.assert(
      fc.property(fc.array(word, { maxLength: 40 }), (words) => {
        const text = words.join('').slice(0, 16_384)
        const start = performance.now()
        const { name } = http(text)
        expect(performance.now() - start).toBeLessThan(200)
        if (name !== undefined) expect(hostName(name)).toBe(name)
      }),
    )
  })
})

test.each([
  ['Example.ORG.', 'example.org'],
  ['_sip.a-b.example', '_sip.a-b.example'],
  ['localhost', 'localhost'],
  ['', undefined],
  ['.', undefined],
  ['a..b', undefined],
  ['-a.example', undefined],
  ['a-.example', undefined],
  ['192.0.2.1', undefined],
  ['127.1', undefined],
  ['2130706433', undefined],
  ['a.0x7f', undefined],
  ['::1', undefined],
  ['a\0.example', undefined],
  ['é.example', undefined],
  [`${'a'.repeat(64)}.example`, undefined],
  [`${'a.'.repeat(127)}example`, undefined],
])('the host name in %j is %j', (text, name) => {
  expect(hostName(text)).toBe(name)
})
