import { ClientRequest, OutgoingMessage, ServerResponse } from 'node:http'
import { describe, expect, test, vi } from 'vitest'
import { nothingGoesAstray } from '../../../test/local/astray.ts'
import { end, open, until } from '../test/client.ts'
import { proxyServer, scripted } from '../test/proxy-server.ts'

// With this, a Trailer passes where node does not let it: what has escaped us, too, must cost its own exchange only.
vi.mock('./framing.ts', () => ({ isChunked: () => true }))
nothingGoesAstray()

const chunked = 'Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\n\r\n'
const answering = (text: string) =>
  scripted((socket) => void socket.on('data', () => socket.write(text)).on('end', () => socket.end()))

describe('a head that node refuses fails its exchange and nothing else:', () => {
  test.each([
    ['of a request', 'GET / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\n\r\n', 'Content-Length: 0\r\n\r\n'],
    [
      'of a request with a body',
      'PUT / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi',
      'Content-Length: 0\r\n\r\n',
    ],
    [
      'of a request with a body to come',
      'PUT / HTTP/1.1\r\nHost: a\r\nTrailer: X-Sum\r\nContent-Length: 200000\r\n\r\nhi',
      'Content-Length: 0\r\n\r\n',
    ],
    ['of an answer', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n', 'Trailer: X-Sum\r\nContent-Length: 2\r\n\r\nhi'],
    [
      'of an answer without a body',
      'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
      'Trailer: X-Sum\r\nContent-Length: 0\r\n\r\n',
    ],
  ])('that %s', async (_, request, answer) => {
    await using proxy = await answering(`HTTP/1.1 200 OK\r\n${answer}`)
    const connection = await open(proxy)
    connection.write(request)
    expect(await end(connection)).toMatchObject({
      code: 'E_UPSTREAM',
      cause: { code: 'ERR_HTTP_TRAILER_INVALID' },
    })
    await proxy.idle()
  })
})

describe('what node throws while a message is under way fails its exchange and nothing else:', () => {
  const refuse = (): never => {
    throw new Error('refused')
  }

  test.each([
    ['in the trailers of a request', () => vi.spyOn(ClientRequest.prototype, 'addTrailers')],
    ['in the trailers of an answer', () => vi.spyOn(ServerResponse.prototype, 'addTrailers')],
    ['in the trailers of any', () => vi.spyOn(OutgoingMessage.prototype, 'addTrailers')],
  ])('%s', async (_, spy) => {
    using _refusing = spy().mockImplementation(refuse)
    await using proxy = await proxyServer({
      origin: (incoming, response) =>
        void incoming.resume().on('end', () => response.socket?.write(`HTTP/1.1 200 OK\r\n${chunked}`)),
    })
    const connection = await open(proxy)
    connection.write(`PUT / HTTP/1.1\r\nHost: a\r\n${chunked}`)
    expect(await end(connection)).toMatchObject({
      code: 'E_UPSTREAM',
      message: expect.stringMatching(/refused$/),
    })
    await proxy.idle()
  })

  test('in the answer to Expect', async () => {
    await using proxy = await answering('HTTP/1.1 100 Continue\r\n\r\n')
    const connection = await open(proxy)
    using _refusing = vi.spyOn(ServerResponse.prototype, 'writeContinue').mockImplementation(refuse)
    connection.write('PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n')
    expect(await end(connection)).toMatchObject({ message: expect.stringMatching(/refused$/) })
    await proxy.idle()
  })
})

test('an interim answer that nobody has asked for is not passed on', async () => {
  await using proxy = await answering(
    'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi',
  )
  const connection = await open(proxy)
  const answered = until(connection, /^HTTP\/1.1 200 OK\r\n[^]*hi$/)
  connection.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
  await answered
  connection.destroy()
})
