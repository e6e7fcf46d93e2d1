import { type Packet, TproxyError } from '@tproxy/core'
import type { Given } from '../invocation.ts'
import {
  answerFlags,
  type Completion,
  config,
  type Flag,
  type Flags,
  type RuleSource,
  rule,
  rules,
} from '../options.ts'
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

const pid: Flag = { type: 'string', value: 'N', says: 'of which tproxy-run, where several run' }
const some = (value: string, says: string, complete?: Completion): Flag => ({
  type: 'string',
  value,
  says,
  ...(complete && { complete }),
})

/** Options of each subcommand, and of each form of `rules`. */
export const showFlags: Flags = {
  watch: { type: 'boolean', says: 'again every second' },
  pid,
  ...answerFlags,
}
export const explainFlags: Flags = {
  config,
  rule,
  rules,
  interface: some('NAME', 'the packet leaves by it', 'interface'),
  uid: some('N', 'of the program'),
  gid: some('N', 'of the program'),
  cgroup: some('PATH', 'of the program'),
  process: some('NAME', 'of the program'),
  mark: some('N', 'of the packet'),
  dscp: some('N', 'of the packet, or a name, such as ef'),
  pid,
  ...answerFlags,
}
export const reloadFlags: Flags = {
  reset: { type: 'boolean', says: 'end the open connections that the new rules decide differently' },
  pid,
  ...answerFlags,
}
export const statusFlags: Flags = { pid, ...answerFlags }

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
  const file = value('config')
  const offline = file !== undefined || sources.length > 0
  only(...fields, ...(offline ? ['config', 'rule', 'rules'] : ['pid']))
  return {
    form: 'rules',
    to,
    packet: parsePacket(words, Object.fromEntries(fields.map((field) => [field, value(field)]))),
    files: offline ? { config: file, rules: sources } : undefined,
    ...common(given),
  }
}

/** What goes with all of them. Throws `E_OPTION`. */
export function common(given: readonly Given[]): { json: boolean; pid?: number } {
  const pid = given.findLast(({ name }) => name === 'pid')?.value
  if (pid !== undefined && !/^\d+$/.test(pid)) throw new TproxyError('E_OPTION', `--pid is "${pid}"`)
  return { json: given.some(({ name }) => name === 'json'), ...(pid !== undefined && { pid: Number(pid) }) }
}
