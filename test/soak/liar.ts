// In the place of an upstream: resets, hangs, closes in the middle of an answer, or answers nonsense.
import { createServer, type Socket } from 'node:net'

const manners: readonly ((socket: Socket) => void)[] = [
  (socket) => socket.resetAndDestroy(),
  (socket) => void socket.resume(),
  (socket) => void socket.once('data', (first) => socket.end(first[0] === 5 ? '\x05' : 'HTTP/1.1 2')),
  (socket) =>
    void socket.once('data', () => socket.write(Buffer.alloc(4096, '\xffnonsense\r\n\r\n', 'latin1'))),
]
let turn = Number(process.argv[3])
createServer((socket) => {
  socket.on('error', () => {})
  manners[turn++ % manners.length]?.(socket)
}).listen(Number(process.argv[2]), '::', () => console.log('ready'))
