import { type Flag, type Flags, sections } from '../options.ts'
import { subcommands } from './commands.ts'
import { bold, heading, italic, manualPage, paragraph, subheading, term, verbatim } from './page.ts'
import { about, environment, examples, exitCodeIs, exitCodes, files, summary, synopsis } from './text.ts'

/** tproxy-run(1). */
export function commandPage(version: string): string {
  const list = (entries: Readonly<Record<string, string>>) =>
    Object.entries(entries).map(([name, says]) => term(bold(name), says))
  return manualPage(
    {
      name: 'tproxy-run',
      section: 1,
      summary,
      parts: [
        heading('SYNOPSIS'),
        [
          ...synopsis,
          ...Object.values(subcommands).flatMap(({ forms }) =>
            Object.keys(forms)
              .slice(0, 1)
              .map((form) => `tproxy-run ${form}`),
          ),
        ]
          .map((line) => usage(line))
          .join('\n.br\n'),
        heading('DESCRIPTION'),
        paragraph(about),
        paragraph(
          'Connections are taken in the kernel, by eBPF programs at the traffic-control hooks, and decided by rules in the kernel and by plugins. What only has to be carried is carried by the kernel. Programs notice nothing.',
        ),
        heading('OPTIONS'),
        ...Object.entries(sections).flatMap(([title, flags]) => [subheading(title), ...options(flags)]),
        heading('COMMANDS'),
        paragraph('In place of a command to run. A program of such a name is run behind --.'),
        ...Object.values(subcommands).flatMap(({ forms, flags, flagsOf }) => [
          ...Object.entries(forms).flatMap(([form, says]) => [
            term(usage(`tproxy-run ${form}`), says),
            ...below(flagsOf?.[form] ?? {}),
          ]),
          ...(flagsOf === undefined ? below(flags) : []),
        ]),
        heading('EXIT STATUS'),
        paragraph(exitCodeIs),
        ...list(exitCodes),
        heading('ENVIRONMENT'),
        ...list(environment),
        heading('FILES'),
        ...list(files),
        heading('EXAMPLES'),
        ...Object.entries(examples).flatMap(([line, says]) => [paragraph(says), verbatim(line)]),
        heading('SEE ALSO'),
        '.BR tproxy.yaml (5),\n.BR ip\\-rule (8),\n.BR systemd.service (5)',
      ],
    },
    version,
  )
}

/** What one types is bold, what stands for something else is not. */
const usage = (line: string) =>
  line
    .split(' ')
    .map((word) => (/^[[]|[A-Z]{2}/.test(word) ? italic(word) : bold(word)))
    .join(' ')

const below = (flags: Flags) => (Object.keys(flags).length === 0 ? [] : ['.RS', ...options(flags), '.RE'])

function options(flags: Flags): string[] {
  return Object.entries(flags).map(([name, flag]) => term(written(name, flag), flag.says))
}

function written(name: string, flag: Flag): string {
  const forms = [...(flag.short === undefined ? [] : [`-${flag.short}`]), `--${name}`].map(bold).join(', ')
  return flag.type === 'string' ? `${forms} ${italic(flag.value)}` : forms
}
