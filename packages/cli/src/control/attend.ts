import { instances, type TransparentProxy } from '@tproxy/core'
import { defer, from, map, merge, of } from 'rxjs'
import { makeReload, type Occasion, type Reload } from '../reload.ts'
import { judge, stateOf } from '../rules/state.ts'
import { describeShadows } from '../shadows.ts'
import { statusOf } from '../status.ts'
import { controlSocket } from './client.ts'
import { type Answer, serve } from './server.ts'
import { closeSession, snapshots } from './sessions.ts'
import { traceOf } from './trace.ts'

/** What can be told to a proxy that runs. */
export interface Attendance extends AsyncDisposable {
  readonly reload: Reload
}

/** Says which rules are of no use, and answers requests until disposed of, which has to be before the proxy closes. */
export async function attend(proxy: TransparentProxy, given: Occasion): Promise<Attendance> {
  const { rules } = proxy
  if (rules === undefined) throw new Error('a transport without rules')
  const warn = () => {
    for (const line of describeShadows(rules)) given.report.warning(line)
  }
  const reload = makeReload(proxy, given, warn)
  const answer: Answer = (request) => {
    switch (request.request) {
      case 'rules':
        return of(stateOf(rules, rules.shadowed))
      case 'status':
        return of(statusOf(proxy))
      case 'watch': {
        const state = () => stateOf(rules, [])
        return merge(
          defer(() => of(state())),
          rules.counted.pipe(map(state)),
        )
      }
      case 'explain':
        return of(judge(rules, request.packet, proxy.memories?.list()))
      case 'reload':
        return from(reload({ reset: request.reset }))
      case 'sessions':
        return snapshots(proxy, request.intervalMs)
      case 'trace':
        return traceOf(proxy, request.target)
      case 'close':
        return from(closeSession(proxy, request.id))
      default:
        throw new Error(`unknown request ${JSON.stringify(request)}`)
    }
  }
  warn()
  const server = await serve(controlSocket(instances().directory, process.pid), answer)
  return { reload, [Symbol.asyncDispose]: () => server[Symbol.asyncDispose]() }
}
