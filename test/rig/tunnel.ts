import type { Child } from './child.ts'
import { fixture } from './fixture.ts'
import { configure, type End } from './link.ts'

/**
 * Joins two hosts by a pair of tun devices, whose packets begin with the IP header, and a program that carries packets from
 * one to the other. (ipip and sit need modules that a kernel may lack.) Close it to cut the link.
 */
export async function joinByTunnel(left: End, right: End): Promise<Child> {
  const program = await fixture('wire')
  const child = left.host.spawn(program, [left.name, `/proc/${right.host.pid}/ns/net`, right.name])
  await child.until(/ready/)
  await Promise.all([configure(left), configure(right)])
  return child
}
