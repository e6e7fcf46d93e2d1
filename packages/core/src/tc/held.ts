import type { HeldSyn } from '@tproxy/bpf'
import type { Acceptor } from './acceptor.ts'
import { Alone } from './alone.ts'
import type { Opening, Openings } from './openings.ts'
import type { TcpSocket } from './tcp-socket.ts'

/** A handshake with our listener takes less than a millisecond, and where its packets are lost, they are sent again for as long. */
const handshakeMs = 30_000

interface HeldOptions {
  readonly openings: Openings
  readonly acceptor: Acceptor
}

/** A connection that waits for a decision: its program is in connect(2), and nothing has been answered. */
export class Held implements Opening {
  readonly held: HeldSyn
  readonly #openings: Openings
  readonly #acceptor: Acceptor
  #isLetGo = false
  #hasGivenUp = false
  #gaveUp: (() => void) | undefined
  #came: ((end: TcpSocket | undefined) => void) | undefined
  #steeredAt = 0

  constructor(held: HeldSyn, { openings, acceptor }: HeldOptions) {
    this.held = held
    this.#openings = openings
    this.#acceptor = acceptor
    openings.add(this)
  }

  get id(): number {
    return this.held.id
  }

  /** Whether it still waits. */
  get waits(): boolean {
    return !this.#isLetGo && !this.#hasGivenUp
  }

  /** Calls back when its program gives up, at once if it has. */
  whenGivenUp(callback: () => void): void {
    this.#gaveUp = callback
    if (this.#hasGivenUp) callback()
  }

  /** Has it go where its program wanted, and resolves when it is there. Rejects as `net.connect` fails, and with {@link GaveUp}. */
  async leaveAlone(signal: AbortSignal, keeps: boolean): Promise<Alone> {
    this.#isLetGo = true
    const { held } = this
    const alone = new Alone({ held, keeps, openings: this.#openings, by: this.#acceptor }, signal)
    return alone.answered
  }

  /** Completes its program's connect(2); calls back with our end, before it returns as a rule, or with nothing where nobody came. */
  accept(came: (end: TcpSocket | undefined) => void): void {
    this.#isLetGo = true
    this.#came = came
    this.#steeredAt = performance.now()
    const { family, ifindex } = this.#acceptor
    if (!this.#openings.kernel.steer(this.held, family, ifindex)) return this.ended()
    this.#acceptor.expect(this.held.key, (end) => {
      this.#came = undefined
      this.#openings.forget(this)
      came(end)
    })
  }

  /** Looks again whether it has come. */
  lookForIt(): void {
    this.#acceptor.take()
  }

  /** Has its program hear that it is refused. */
  refuse(): void {
    this.#isLetGo = true
    this.#openings.forget(this)
    const { family, ifindex } = this.#acceptor
    try {
      this.#openings.kernel.refuse(this.held, family, ifindex)
    } catch {
      // It asks again by itself, and hears nothing: as from a network that is gone.
    }
  }

  /** That its program gave up while it was being accepted shows here, where that event was lost. */
  look(): void {
    if (this.#came !== undefined && performance.now() - this.#steeredAt > handshakeMs) this.ended()
  }

  ended(): void {
    if (this.#hasGivenUp) return
    this.#hasGivenUp = true
    this.#openings.forget(this)
    if (this.#came !== undefined) {
      this.#acceptor.forget(this.held.key)
      this.#came(undefined)
    }
    this.#gaveUp?.()
  }
}
