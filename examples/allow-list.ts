// A plugin: what a build or an agent may reach on the network, and a report of what it tried.
//
//   ./tproxy-run --plugin ./examples/allow-list.ts=allowed.txt --rule 'drop udp not dport 53' -- npm install
//
// allowed.txt has a domain, with all below it, or an address a line. All other TCP is refused; the rule does the same to UDP,
// by which nothing here is decided. A program may claim a name and connect to any address, so an allowed name is resolved here,
// and the address that the program chose does not count.
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { definePlugin, direct, drop, formatEndpoint, type Upstream, via } from '@tproxy/core'
import { z } from 'zod'

const byName: Upstream = {
  name: 'by name',
  names: true,
  async connect({ name, address, port }, signal) {
    if (name === undefined) throw new Error(`${address} has no name`)
    const socket = connect({ host: name, port, allowHalfOpen: true, signal })
    await once(socket, 'connect')
    return socket
  },
}

export default definePlugin({
  name: 'allow-list',
  options: z.object({ file: z.string().describe('a file with a domain or an address a line') }),
  argument: 'file',
  create({ file }) {
    const allowed = readFileSync(file, 'utf8')
      .split(/\s+/)
      .filter((line) => line !== '')
    const tried = new Map<string, number>()
    return {
      async decide(connection) {
        const { destination, process } = connection
        const { name } = await connection.peek()
        const isAllowed = allowed.some((entry) => `.${name ?? ''}`.endsWith(`.${entry}`))
        const verdict = isAllowed ? via(byName) : allowed.includes(destination.address) ? direct() : drop()
        const what = `${name ?? '(no name)'} ${formatEndpoint(destination)} by ${process?.name ?? '?'}`
        const line = `${verdict.kind === 'drop' ? 'refused' : 'allowed'}  ${what}`
        tried.set(line, (tried.get(line) ?? 0) + 1)
        return verdict
      },
      close() {
        const lines = [...tried].map(([line, times]) => `${line}  ×${times}`)
        for (const line of lines.toSorted()) console.error(line)
      },
    }
  },
})
