import { readdirSync, readFileSync } from 'node:fs'
import type { Host, Program } from './host.ts'

/** Open file descriptors of a process. */
export function openFiles(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

/** Resident memory of a process, in MB. */
export function residentMb(pid: number): number {
  const status = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/VmRSS:\s+(\d+)/.exec(status)?.[1]) / 1024
}

/** Processor time a process has used, in milliseconds. The kernel counts it in hundredths of a second. */
export function processorMs(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10
}

/** How many entries a BPF map of a process holds, by the map's name. */
export async function mapEntries(host: Host, program: Program, name: string): Promise<number> {
  const fds = readdirSync(`/proc/${program.pid}/fdinfo`).map((fd) => {
    try {
      return readFileSync(`/proc/${program.pid}/fdinfo/${fd}`, 'utf8')
    } catch {
      // Closed meanwhile.
      return ''
    }
  })
  const ids = new Set(fds.flatMap((info) => /^map_id:\s+(\d+)/m.exec(info)?.[1] ?? []))
  const maps = JSON.parse(await host.sh('PATH=$PATH:/usr/sbin bpftool -j map show')) as {
    id: number
    name?: string
  }[]
  const map = maps.find((it) => it.name === name && ids.has(String(it.id)))
  if (map === undefined) throw new Error(`process ${program.pid} has no map ${name}`)
  const dump = await host.sh(`PATH=$PATH:/usr/sbin bpftool -j map dump id ${map.id}`)
  return (JSON.parse(dump) as unknown[]).length
}
