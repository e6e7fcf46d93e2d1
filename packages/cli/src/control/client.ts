import { once } from 'node:events'
import { existsSync } from 'node:fs'
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { instances, reason, TproxyError } from '@tproxy/core'
import type { Failure } from '../finding.ts'
import type { Request, Response } from './protocol.ts'

/** Where a process listens for requests. */
export function controlSocket(directory: string, pid: number): string {
  return `${directory}/${pid}.sock`
}

/** Asks the tproxy-run with this number, or the only one that runs in this network namespace. Yields its answers. */
export async function* ask<T>(request: Request, pid: number | undefined): AsyncGenerator<T> {
  const process = choose(pid, request)
  const socket = connect(process.socket)
  try {
    await once(socket, 'connect')
    socket.write(`${JSON.stringify(request)}\n`)
    for await (const line of createInterface({ input: socket })) {
      const response = JSON.parse(line) as Response
      if ('error' in response) throw failed(process.pid, response.error)
      yield response.answer as T
    }
  } catch (cause) {
    if (cause instanceof TproxyError) throw cause
    throw new TproxyError('E_SYSTEM', `ask process ${process.pid}: ${reason(cause)}`, { cause })
  } finally {
    socket.destroy()
  }
}

/** Not those of Node, such as EPIPE and ERR_INVALID_ARG_TYPE. */
const isErrorCode = (code: string | undefined): code is TproxyError['code'] => code?.startsWith('E_') ?? false

/** What was thrown there. */
function failed(pid: number, { code, message, hint }: Failure): TproxyError {
  const options = hint === undefined ? {} : { hint }
  return new TproxyError(isErrorCode(code) ? code : 'E_SYSTEM', `process ${pid}: ${message}`, options)
}

/** The answer to a request that has one. */
export async function askOnce<T>(request: Request, pid: number | undefined): Promise<T> {
  for await (const answer of ask<T>(request, pid)) return answer
  throw new TproxyError('E_SYSTEM', `${request.request}: the process ended before it answered`)
}

function choose(pid: number | undefined, request: Request): { pid: number; socket: string } {
  const { directory, living } = instances()
  const running = living
    .map((each) => ({ pid: each, socket: controlSocket(directory, each) }))
    .filter(({ socket }) => existsSync(socket))
  const chosen = pid === undefined ? running : running.filter((each) => each.pid === pid)
  const [only] = chosen
  if (only !== undefined && chosen.length === 1) return only
  const pids = running.map((each) => each.pid).join(', ')
  if (running.length === 0) {
    const hint = insteadOfRunning(request)
    throw new TproxyError(
      'E_OPTION',
      'no tproxy-run runs in this network namespace',
      hint === '' ? {} : { hint },
    )
  }
  if (pid !== undefined)
    throw new TproxyError('E_OPTION', `--pid ${pid} is no tproxy-run here`, { hint: `there is ${pids}` })
  throw new TproxyError('E_OPTION', `${running.length} tproxy-run run here: ${pids}`, {
    hint: 'choose one with --pid',
  })
}

/** What else can be, or be done, where none runs. Root sees those of everybody. */
export function insteadOfRunning(
  { request }: Pick<Request, 'request'>,
  uid: number | undefined = process.geteuid?.(),
): string {
  const whose = uid === 0 ? [] : ['or it is not yours: try sudo']
  const files = request === 'explain' ? ['or give --rule, --rules or --config'] : []
  return [...whose, ...files].join(', ')
}
