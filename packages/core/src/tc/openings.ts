import type { HeldSyn, Openings as KernelOpenings, OpeningEvent } from '@tproxy/bpf'

/** Who is told what becomes of a connection that a program opens. */
export interface Opening {
  /** Of this opening of its socket. */
  readonly id: number
  /** Only of one that was left alone: it is established. */
  reached?(): void
  /** It is over, or its program has given up. */
  ended(event: OpeningEvent): void
  /** Called now and then, for what shows in no event. */
  look?(): void
}

/** Each is looked at this often. */
const roundMs = 5_000

/** A round is made in steps, so that thousands do not hold up new connections. */
const stepMs = 250

/** Connections that programs open, from their first packet: those that wait for a decision, and those that were then left alone. */
export class Openings implements Disposable {
  readonly kernel: KernelOpenings
  readonly #known = new Map<number, Opening>()
  readonly #listening: { close(): void }
  readonly #round: NodeJS.Timeout
  /** What this round has still to look at. */
  #left: Opening[] = []
  #perStep = 0
  /** What nobody waits for. */
  readonly #news: { readonly event: OpeningEvent; readonly isOver: boolean }[] = []
  #telling: NodeJS.Immediate | undefined

  /** `held` hears of each that waits. */
  constructor(kernel: KernelOpenings, held: (held: HeldSyn) => void) {
    this.kernel = kernel
    this.#listening = kernel.listen({
      held,
      reached: (event) => this.#tellLater(event, false),
      ended: (event) => this.#tellLater(event, true),
    })
    this.#round = setInterval(() => this.#look(), stepMs).unref()
  }

  /** It hears of itself from now on, in place of what it was before. */
  add(opening: Opening): void {
    this.#known.set(opening.id, opening)
  }

  /** Nobody does. */
  forget({ id }: Opening): void {
    this.#known.delete(id)
  }

  [Symbol.dispose](): void {
    clearInterval(this.#round)
    clearImmediate(this.#telling)
    this.#listening.close()
  }

  /** A program may wait for the decision about what was held at the same time, which comes first. */
  #tellLater(event: OpeningEvent, isOver: boolean): void {
    this.#news.push({ event, isOver })
    this.#telling ??= setImmediate(() => this.#tell())
  }

  #tell(): void {
    this.#telling = undefined
    for (const { event, isOver } of this.#news.splice(0)) {
      const opening = this.#known.get(event.id)
      if (isOver) {
        this.#known.delete(event.id)
        opening?.ended(event)
      } else opening?.reached?.()
    }
  }

  #look(): void {
    if (this.#left.length === 0) {
      this.#left = [...this.#known.values()]
      this.#perStep = Math.ceil((this.#left.length * stepMs) / roundMs)
    }
    for (const opening of this.#left.splice(-this.#perStep)) opening.look?.()
  }
}
