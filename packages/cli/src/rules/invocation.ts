import { type Packet, TproxyError } from '@tproxy/core'
import type { Given } from '../invocation.ts'
import type { Flags, RuleSource } from '../options.ts'
import { parsePacket } from './packet.ts'

/** What asks the one that runs: `tproxy-run rules …`, `reload` and `status`. */
export type RulesForm =
  | {
      readonly form: 'rules'
      readonly to: 'show'
      readonly watch: boolean
      readonly pid?: number
      readonly json: boolean
    }
  | { readonly form: 'rules'; readonly to: 'check'; readonly file: string; readonly json: boolean }
  | ExplainForm
  | { readonly form: 'status'; readonly pid?: number; readonly json: boolean }
  | { readonly form: 'reload'; readonly reset: boolean; readonly pid?: number; readonly json: boolean }

export interface ExplainForm {
  readonly form: 'rules'
  readonly to: 'explain'
  readonly packet: Packet
  /** undefined: ask the one that runs. */
  readonly files: { readonly config: string | undefined; readonly rules: readonly RuleSource[] } | undefined
  readonly pid?: number
  readonly json: boolean
}

const always: Flags = {
  json: { type: 'boolean' },
  help: { type: 'boolean', short: 'h' },
  version: { type: 'boolean', short: 'V' },
}
const text = { type: 'string' } as const

/** Options of each subcommand. */
export const rulesFlags: Flags = {
  ...always,
  watch: { type: 'boolean' },
  pid: text,
  config: { type: 'string', short: 'c' },
  rule: text,
  rules: text,
  interface: { type: 'string', short: 'i' },
  uid: text,
  gid: text,
  cgroup: text,
  process: text,
  mark: text,
  dscp: text,
}
export const reloadFlags: Flags = { ...always, reset: { type: 'boolean' }, pid: text }
export const statusFlags: Flags = { ...always, pid: text }

/** Throws `E_OPTION`. */
export function parseReload(words: readonly string[], given: readonly Given[]): RulesForm {
  if (words.length > 0) throw new TproxyError('E_OPTION', 'reload takes no arguments')
  const reset = given.some(({ name }) => name === 'reset')
  return { form: 'reload', reset, ...common(given) }
}

/** Throws `E_OPTION`. */
export function parseStatus(words: readonly string[], given: readonly Given[]): RulesForm {
  if (words.length > 0) throw new TproxyError('E_OPTION', 'status takes no arguments')
  return { form: 'status', ...common(given) }
}

/** Throws `E_OPTION`. */
export function parseRules([to, ...words]: readonly string[], given: readonly Given[]): RulesForm {
  const value = (name: string) => given.findLast((option) => option.name === name)?.value
  const only = (...names: string[]) => {
    const stray = given.find(({ name }) => !['json', ...names].includes(name))
    if (stray !== undefined)
      throw new TproxyError(
        'E_OPTION',
        `--${stray.name} does not go with ${to === undefined ? 'rules' : `rules ${to}`}`,
      )
  }
  if (to === undefined) {
    only('watch', 'pid')
    return { form: 'rules', to: 'show', watch: given.some(({ name }) => name === 'watch'), ...common(given) }
  }
  if (to === 'check') {
    only()
    const [file, ...rest] = words
    if (file === undefined || rest.length > 0)
      throw new TproxyError('E_OPTION', 'rules check needs one file', { hint: 'of rules, or a .yaml' })
    return { form: 'rules', to, file, json: common(given).json }
  }
  if (to !== 'explain')
    throw new TproxyError('E_OPTION', `rules ${to}: there is no such command`, {
      hint: 'rules, rules check FILE, or rules explain PROTO SRC[:PORT] DST[:PORT]',
    })
  const fields = ['uid', 'gid', 'cgroup', 'process', 'interface', 'mark', 'dscp'] as const
  const sources = given.flatMap(({ name, value: source = '' }): RuleSource[] =>
    name === 'rule' ? [{ text: source }] : name === 'rules' ? [{ file: source }] : [],
  )
  const config = value('config')
  const offline = config !== undefined || sources.length > 0
  only(...fields, ...(offline ? ['config', 'rule', 'rules'] : ['pid']))
  return {
    form: 'rules',
    to,
    packet: parsePacket(words, Object.fromEntries(fields.map((field) => [field, value(field)]))),
    files: offline ? { config, rules: sources } : undefined,
    ...common(given),
  }
}

/** What goes with all of them. Throws `E_OPTION`. */
export function common(given: readonly Given[]): { json: boolean; pid?: number } {
  const pid = given.findLast(({ name }) => name === 'pid')?.value
  if (pid !== undefined && !/^\d+$/.test(pid)) throw new TproxyError('E_OPTION', `--pid is "${pid}"`)
  return { json: given.some(({ name }) => name === 'json'), ...(pid !== undefined && { pid: Number(pid) }) }
}
