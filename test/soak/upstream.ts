import { fileURLToPath } from 'node:url'
import type { Host, Program } from '../rig/host.ts'
import type { Server } from '../rig/servers.ts'

/** A proxy server that can be taken away, be replaced by one that lies, and come back. */
export class Upstream implements AsyncDisposable {
  readonly #host: Host
  readonly #port: number
  readonly #start: () => Promise<Server>
  #server: Server | undefined
  #liar: Program | undefined

  constructor(host: Host, port: number, start: () => Promise<Server>) {
    this.#host = host
    this.#port = port
    this.#start = start
  }

  async begin(): Promise<void> {
    await this.#liar?.stop('SIGKILL')
    this.#liar = undefined
    this.#server ??= await this.#start()
  }

  async kill(): Promise<void> {
    await this.#server?.program.stop('SIGKILL')
    await this.#server?.[Symbol.asyncDispose]()
    this.#server = undefined
  }

  async lie(manner: number): Promise<void> {
    await this.kill()
    const path = fileURLToPath(new URL('./liar.ts', import.meta.url))
    this.#liar = this.#host.spawn(process.execPath, [path, `${this.#port}`, `${manner}`])
    await this.#liar.until(({ stdout }) => stdout.includes('ready'), 'the liar')
  }

  stand(still: boolean): void {
    this.#server?.program.kill(still ? 'SIGSTOP' : 'SIGCONT')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#liar?.stop('SIGKILL')
    await this.kill()
  }
}
