// The first process of a trial, alone in its network namespace: a program whose connections a proxy, its child, takes. Prints
// what is not right, if anything. Fails when that cannot be known.
import { fork } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { on, once } from 'node:events'
import { connect } from 'node:net'
import { extname } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { reason } from '../../errors.ts'
import { ip } from '../system.ts'

/** Documentation addresses (RFC 5737, RFC 3849): nobody has them, and here whatever leaves is lost. */
const network = `link set lo up
link add trial arp off type veth peer name nobody
link set nobody up
address add 192.0.2.1/24 dev trial
address add 2001:db8::1/64 dev trial nodad
link set trial up`
const destinations = ['192.0.2.2', '2001:db8::2']
const port = 7

/** Small messages first, between which the connection falls silent, then more than any buffer on the way holds. */
const messages = [...Array.from({ length: 20 }, () => 100), 4_000_000]

interface Told {
  readonly carried: string
  readonly notSpliced?: string
  readonly bytes: { sent: number; received: number }
  readonly how: string
}

const signal = AbortSignal.timeout(Number(process.argv[2]))
ip(['-batch', '-'], network)
const proxy = fork(new URL(`proxy${extname(import.meta.filename)}`, import.meta.url))
const exited = once(proxy, 'exit', { signal })
const [ready] = await Promise.race([once(proxy, 'message', { signal }), exited])
if (ready !== 'ready') process.exit(1)
try {
  for (const destination of destinations) expectRight(await play(destination))
} catch (error) {
  console.log(signal.aborted ? 'a connection hangs' : reason(error))
}
proxy.disconnect()
await exited
process.exit()

async function play(host: string): Promise<Told> {
  const told = once(proxy, 'message', { signal })
  const socket = connect({ host, port, allowHalfOpen: true })
  const chunks = on(socket, 'data', { signal, close: ['end'] })
  for (const size of messages) {
    const sent = randomBytes(size)
    if (size === messages.at(-1)) socket.end(sent)
    else socket.write(sent)
    const received: Buffer[] = []
    for (let left = size; left > 0; left -= received.at(-1)?.length ?? 0) {
      const { value, done } = await chunks.next()
      if (done) throw new Error('bytes are lost')
      received.push(value[0])
    }
    if (!Buffer.concat(received).equals(sent)) throw new Error('bytes are changed')
    await sleep(1)
  }
  if (!(await chunks.next()).done) throw new Error('bytes come twice')
  const [session] = await told
  return session
}

function expectRight({ carried, notSpliced, bytes, how }: Told): void {
  const all = messages.reduce((sum, size) => sum + size)
  if (carried !== 'splice') throw new Error(notSpliced ?? 'a connection does not go over to the kernel')
  if (how !== 'closed') throw new Error(`a connection ends as ${how}`)
  if (bytes.sent !== all || bytes.received !== all) throw new Error('bytes are counted wrongly')
}
