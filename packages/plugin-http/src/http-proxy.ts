import { createRequire } from 'node:module'
import type Server from 'http-proxy'
import type { ServerOptions } from 'http-proxy'

// http-proxy takes util._extend when it loads and calls it for every request; node warns about that (DEP0060) on the
// standard error of whatever program we are part of. Object.assign is what it stands for, and keeps the order of headers.
const require = createRequire(import.meta.url)
const util = require('node:util') as { _extend: unknown }
const { _extend } = util
util._extend = Object.assign
const httpProxy = require('http-proxy') as typeof import('http-proxy')
util._extend = _extend

/** A server of `http-proxy`, without its deprecation warning. */
export function createProxyServer(options: ServerOptions): Server {
  return httpProxy.createProxyServer(options)
}
