import { parseArgs } from 'node:util'
import { nearest, TproxyError } from '@tproxy/core'
import { type CheckForm, parseCheck } from './check/invocation.ts'
import { type Shell, shells, subcommands } from './manual/commands.ts'
import { type Flags, flags, type Options, readOptions } from './options.ts'
import { parseReload, parseRules, parseStatus, type RulesForm } from './rules/invocation.ts'
import { parseTop, type TopForm } from './top/invocation.ts'
import { parseTrace, type TraceForm } from './trace/invocation.ts'

/** What the command line asks for. */
export type Invocation =
  | { readonly form: 'help' }
  | { readonly form: 'version' }
  | { readonly form: 'doctor'; readonly options: Options }
  | { readonly form: 'clean'; readonly options: Options }
  | CheckForm
  | { readonly form: 'completion'; readonly shell: Shell }
  | RulesForm
  | TopForm
  | TraceForm
  | InterfaceForm
  | CommandForm

/** `tproxy-run --interface NAME` */
export interface InterfaceForm {
  readonly form: 'interface'
  readonly options: Options
}

/** `tproxy-run -- COMMAND` */
export interface CommandForm {
  readonly form: 'command'
  readonly options: Options
  readonly command: readonly [string, ...string[]]
  /** Whether it stands behind --, where no word of ours can be meant. */
  readonly terminated: boolean
}

/** An option as it was written: `name` without dashes. */
export interface Given {
  readonly name: string
  readonly value: string | undefined
}

const seeHelp = 'see tproxy-run --help'
const writeCheck = 'write check FILE'
/** Options that name a file, in place of which check takes it as it is. */
const filesOfCheck = { config: writeCheck, c: writeCheck }

/** Reads the arguments after the program's name. Throws `E_OPTION`; its message repeats no value, which may be secret. */
export function parseInvocation(args: readonly string[]): Invocation {
  const { given, rest, terminated } = splitOptions(args, flags)
  const [first, ...others] = rest
  if (!terminated && first !== undefined && Object.hasOwn(subcommands, first))
    return parseSubcommand(first, given, others)
  if (given.some(({ name }) => name === 'help')) return { form: 'help' }
  if (given.some(({ name }) => name === 'version')) return { form: 'version' }
  const options = readOptions(given)
  if (first !== undefined) return { form: 'command', options, command: [first, ...others], terminated }
  if (options.interfaces === undefined && options.config === undefined)
    throw new TproxyError('E_OPTION', 'nothing to do', {
      hint: 'give a command, as in sudo tproxy-run -v -- curl https://example.com, or --interface NAME',
    })
  if (options.user !== undefined)
    throw new TproxyError('E_OPTION', '--user without a command', { hint: seeHelp })
  return { form: 'interface', options }
}

/** Here, options and words may be mixed. */
function parseSubcommand(name: string, before: readonly Given[], args: readonly string[]): Invocation {
  const allowed = subcommands[name]?.flags ?? {}
  const stray = before.find((option) => !Object.hasOwn(allowed, option.name))
  if (stray !== undefined)
    throw new TproxyError('E_OPTION', `--${stray.name} does not go with ${name}`, {
      hint: name === 'check' && stray.name === 'config' ? writeCheck : seeHelp,
    })
  const given = [...before]
  const words: string[] = []
  for (let left = args; left.length > 0; ) {
    const { given: options, rest } = splitOptions(left, allowed, name === 'check' ? filesOfCheck : {})
    given.push(...options)
    words.push(...rest.slice(0, 1))
    left = rest.slice(1)
  }
  if (given.some((option) => option.name === 'help')) return { form: 'help' }
  if (given.some((option) => option.name === 'version')) return { form: 'version' }
  if (name === 'completion') return { form: 'completion', shell: shellOf(words) }
  if (name === 'check') return parseCheck(words, given)
  if (name === 'rules') return parseRules(words, given)
  if (name === 'reload') return parseReload(words, given)
  if (name === 'status') return parseStatus(words, given)
  if (name === 'top') return parseTop(words, given)
  if (name === 'trace') return parseTrace(words, given)
  if (words.length > 0)
    throw new TproxyError('E_OPTION', `${name} takes no arguments`, {
      hint: `to run a program of that name: tproxy-run -- ${name} …`,
    })
  return { form: name as 'doctor' | 'clean', options: readOptions(given) }
}

function shellOf(words: readonly string[]): Shell {
  const shell = shells.find((each) => each === words[0])
  if (shell === undefined || words.length > 1)
    throw new TproxyError('E_OPTION', 'completion needs the name of a shell', { hint: shells.join(', ') })
  return shell
}

/** Options end at `--` or at the first word that is none: what follows belongs to the command. */
function splitOptions(
  args: readonly string[],
  flags: Flags,
  elsewhere: Readonly<Record<string, string>> = {},
): { given: Given[]; rest: string[]; terminated: boolean } {
  const { tokens } = parseArgs({
    args: [...args],
    options: flags,
    strict: false,
    allowPositionals: true,
    tokens: true,
  })
  const given: Given[] = []
  for (const token of tokens) {
    if (token.kind === 'positional') return { given, rest: args.slice(token.index), terminated: false }
    if (token.kind === 'option-terminator')
      return { given, rest: args.slice(token.index + 1), terminated: true }
    const flag = Object.entries(flags).find(([name]) => name === token.name)?.[1]
    if (flag === undefined) throw unknownOption(token.rawName, flags, elsewhere[token.name])
    if (flag.type === 'boolean' && token.value !== undefined)
      throw new TproxyError('E_OPTION', `${token.rawName} takes no value`, { hint: seeHelp })
    if (flag.type === 'string' && (token.value === undefined || token.value === ''))
      throw new TproxyError('E_OPTION', `${token.rawName} needs a value`, { hint: seeHelp })
    given.push({ name: token.name, value: token.value })
  }
  return { given, rest: [], terminated: false }
}

function unknownOption(written: string, flags: Flags, hint: string | undefined): TproxyError {
  const near = nearest(written.replace(/^-+/, ''), Object.keys(flags))
  return new TproxyError('E_OPTION', `unknown option ${written}`, {
    hint: hint ?? (near === undefined ? seeHelp : `did you mean --${near}?`),
  })
}
