import { compileRules, type Packet } from '@tproxy/core'
import { askOnce } from '../control/client.ts'
import type { Verdict } from '../control/protocol.ts'
import type { Ending } from '../ending.ts'
import { jsonLine } from '../json-line.ts'
import { protocolName } from '../lines.ts'
import { printable } from '../scrub.ts'
import { readFiles } from '../settings.ts'
import type { ExplainForm } from './invocation.ts'
import { judge } from './state.ts'

/** `tproxy-run rules explain …`: by the one that runs, or by files. */
export async function explainPacket({ packet, files, pid, json }: ExplainForm): Promise<Ending> {
  const verdict =
    files === undefined
      ? await askOnce<Verdict>({ request: 'explain', packet }, pid)
      : await judgeByFiles(files, packet)
  console.log(
    json
      ? jsonLine({ event: 'explanation', packet, ...verdict })
      : describeVerdict(verdict, packet).map(printable).join('\n'),
  )
  return { code: 0 }
}

async function judgeByFiles(files: NonNullable<ExplainForm['files']>, packet: Packet): Promise<Verdict> {
  const { rules, defaultAction } = await readFiles(files)
  return judge(compileRules(rules, defaultAction), packet)
}

/** The winner first, then what came close. */
export function describeVerdict(verdict: Verdict, packet: Packet): string[] {
  const { rule, action, text, remembered, before, misses } = verdict
  const untouched = text === 'default proxy' && action === 'direct'
  const winner =
    rule === 0
      ? `no rule matches: ${text}${untouched ? `, which leaves ${protocolName(packet.protocol)} alone` : ''}`
      : `rule ${rule} matches first: ${text}`
  const winners =
    remembered === undefined
      ? [winner]
      : [
          winner,
          `until ${remembered.until} the kernel remembers a plugin's verdict for it: ${remembered.verdict}`,
        ]
  if (misses.length === 0) return winners
  const those = rule === 0 ? 'rules' : 'rules before it'
  const width = Math.max(...misses.map((miss) => miss.text.length))
  return [
    ...winners,
    before === misses.length
      ? `what speaks against the ${those}:`
      : `what speaks against the nearest of the ${before} ${those}:`,
    ...misses.map(
      (miss) =>
        `${String(miss.rule).padStart(6)}  ${miss.text.padEnd(width)}  ${miss.against
          .map((field) => `${field}${isGiven(field, packet) ? '' : ' (not given)'}`)
          .join(', ')}`,
    ),
  ]
}

function isGiven(field: string, packet: Packet): boolean {
  const name = field === 'cgroup' ? 'cgroups' : field
  const optional: readonly string[] = ['dport', 'sport', 'uid', 'gid', 'process', 'cgroups', 'interface']
  return !optional.includes(name) || packet[name as keyof Packet] !== undefined
}
