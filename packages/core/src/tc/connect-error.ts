import { getSystemErrorName } from 'node:util'
import { endpointOf, formatEndpoint } from '../endpoint.ts'

/** Why a connection was not reached, as node words it. */
export function connectError(errno: number, to: Uint8Array, port: number, cause?: Error): Error {
  const code = getSystemErrorName(-errno)
  const where = endpointOf(to, port)
  const error = new Error(`connect ${code} ${formatEndpoint(where)}`, cause && { cause })
  return Object.assign(error, { code, errno: -errno, syscall: 'connect', address: where.address, port })
}
