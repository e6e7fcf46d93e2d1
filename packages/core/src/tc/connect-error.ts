import { getSystemErrorName } from 'node:util'
import { type Endpoint, formatEndpoint } from '../endpoint.ts'

/** Why a connection was not reached, as node words it. */
export function connectError(errno: number, to: Endpoint, cause?: Error): Error {
  const code = getSystemErrorName(-errno)
  const error = new Error(`connect ${code} ${formatEndpoint(to)}`, cause && { cause })
  return Object.assign(error, { code, errno: -errno, syscall: 'connect', address: to.address, port: to.port })
}
