import { subcommands } from './manual/commands.ts'
import { about, examples, exitCodeIs, exitCodes, synopsis } from './manual/text.ts'
import { type Flag, type Flags, sections } from './options.ts'

const width = 110
const column = 27

/** What `--help` prints. */
export function help(): string {
  const [first, ...more] = [
    ...synopsis,
    `tproxy-run ${Object.values(subcommands)
      .flatMap(({ forms }) => Object.keys(forms).slice(0, 1))
      .join(' | ')}`,
  ]
  return [
    `Usage: ${first}`,
    ...more.flatMap((line) => fill(line, 7)),
    '',
    ...fill(about, 0),
    '',
    ...Object.entries(examples).flatMap(([line, says]) => [`  ${line}`, ...fill(says, 8)]),
    '',
    ...Object.entries(sections).flatMap(([title, flags]) => [title, ...options(flags)]),
    '',
    'In place of a command (--json: for programs; --pid N: which tproxy-run, where several run)',
    ...Object.values(subcommands).flatMap(({ forms }) =>
      Object.entries(forms).flatMap(([line, says]) => entry(`  tproxy-run ${line}`, says)),
    ),
    '',
    exitCodeIs,
    ...Object.entries(exitCodes).flatMap(([code, says]) => entry(`  ${code}`, says, 7)),
  ].join('\n')
}

function options(flags: Flags): string[] {
  return Object.entries(flags).flatMap(([name, flag]) => entry(`  ${written(name, flag)}`, flag.says))
}

/** `-i, --interface NAME`, the short form in a column of its own. */
function written(name: string, flag: Flag): string {
  const short = flag.short === undefined ? '    ' : `-${flag.short}, `
  return `${short}--${name}${flag.type === 'string' ? ` ${flag.value}` : ''}`
}

/** A term, and what it means in a column beside it, or below one that is too long. */
function entry(term: string, says: string, at = column): string[] {
  const [first = '', ...rest] = fill(says, at)
  return term.length > at - 2 ? [term, first, ...rest] : [term.padEnd(at) + first.trimStart(), ...rest]
}

/** Breaks a text into lines that are indented. */
function fill(text: string, indent: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const last = lines.at(-1)
    if (last !== undefined && last.length + 1 + word.length <= width - indent)
      lines[lines.length - 1] = `${last} ${word}`
    else lines.push(word)
  }
  return lines.map((line) => ' '.repeat(indent) + line)
}
