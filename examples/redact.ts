// A plugin: what programs send without encryption, they send without these secrets.
//
//   sudo ./tproxy-run --interface eth0 --plugin ./examples/redact.ts=/etc/secrets
//
// The file has a secret a line. Each is replaced by as many asterisks, so that lengths that were announced stay right.
// TLS is not read; it goes directly, in the kernel.
import { readFileSync } from 'node:fs'
import { Transform, type TransformCallback } from 'node:stream'
import { definePlugin, direct } from '@tproxy/core'
import { z } from 'zod'

class Redaction extends Transform {
  readonly #secrets: readonly Buffer[]
  #held: Buffer = Buffer.alloc(0)

  constructor(secrets: readonly Buffer[]) {
    super()
    this.#secrets = secrets
  }

  override _transform(chunk: Buffer, _: BufferEncoding, done: TransformCallback): void {
    const bytes = Buffer.concat([this.#held, chunk])
    for (const secret of this.#secrets)
      for (let at = 0; (at = bytes.indexOf(secret, at)) >= 0; at += secret.length)
        bytes.fill('*', at, at + secret.length)
    // The end may be the beginning of a secret: it waits for what follows.
    const held = Math.max(...this.#secrets.map((secret) => begun(bytes, secret)))
    this.#held = bytes.subarray(bytes.length - held)
    done(null, bytes.subarray(0, bytes.length - held))
  }

  override _flush(done: TransformCallback): void {
    done(null, this.#held)
  }
}

/** How many bytes at the end are the first ones of the secret. */
function begun(bytes: Buffer, secret: Buffer): number {
  for (let length = Math.min(secret.length - 1, bytes.length); length > 0; length--)
    if (bytes.subarray(bytes.length - length).equals(secret.subarray(0, length))) return length
  return 0
}

export default definePlugin({
  name: 'redact',
  options: z.object({ file: z.string().describe('a file with a secret a line') }),
  argument: 'file',
  create({ file }) {
    const lines = readFileSync(file, 'utf8').split('\n')
    const secrets = lines.filter((line) => line !== '').map((line) => Buffer.from(line))
    if (secrets.length === 0) throw new Error(`${file} has no secrets`)
    const redacted = direct({ transform: () => ({ sent: new Redaction(secrets) }) })
    return async (connection) => ((await connection.peek()).protocol === 'tls' ? direct() : redacted)
  },
})
