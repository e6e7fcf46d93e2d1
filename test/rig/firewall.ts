import type { Host } from './host.ts'

let tables = 0

/** Gives a host rules of nftables in one hook, for as long as the value lives: `await using`. */
export async function firewall(
  host: Host,
  hook: 'input' | 'output' | 'prerouting',
  ...rules: string[]
): Promise<AsyncDisposable> {
  const name = `rig${++tables}`
  const chain = `type filter hook ${hook} priority 0;`
  const script = `table inet ${name} {
 chain ${hook} {
 ${[chain, ...rules].join('\n')}
 }
}
`
  const { code, stderr } = await host.run('/usr/sbin/nft', ['-f', '-'], { input: script })
  if (code !== 0) throw new Error(`nft: ${stderr}`)
  return {
    async [Symbol.asyncDispose]() {
      await host.sh(`/usr/sbin/nft delete table inet ${name}`)
    },
  }
}
