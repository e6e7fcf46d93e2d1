// Imported before proxy.ts where a test accepts that programs hear 0 when they ask how much they can read (FIONREAD), which
// some kernels do to all sockets in a sockmap: the proxy then tries out all but that, and goes on.
import { registerHooks } from 'node:module'

const stub = `
import { rehearse as all } from './rehearsal.ts?all'
export const rehearse = (fastpath) => all(fastpath, 'both')`

registerHooks({
  load: (url, context, next) =>
    url.endsWith('/tc/rehearsal.ts')
      ? { format: 'module', source: stub, shortCircuit: true }
      : next(url, context),
})
