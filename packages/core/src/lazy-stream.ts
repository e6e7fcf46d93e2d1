import type { Duplex } from 'node:stream'
import { reset } from './relay.ts'
import type { LazyStream } from './transport.ts'

/** A stream that there is already. */
class ReadyStream implements LazyStream {
  readonly stream: Duplex

  constructor(stream: Duplex) {
    this.stream = stream
  }

  reset(): void {
    reset(this.stream)
  }
}

export const asLazy = (stream: Duplex | LazyStream): LazyStream =>
  'stream' in stream && 'reset' in stream ? stream : new ReadyStream(stream as Duplex)
