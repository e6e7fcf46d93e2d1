import { jsonSchema } from '../config/schema.ts'
import { bold, heading, italic, manualPage, paragraph, subheading, term, verbatim } from './page.ts'

/** Of JSON Schema, what the schema of the file uses. */
interface Schema {
  readonly description?: string
  readonly type?: string | readonly string[]
  readonly enum?: readonly string[]
  readonly const?: string | number
  readonly pattern?: string
  readonly items?: Schema
  readonly anyOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
}

const example = `plugins:
  - socks=socks5://192.0.2.1:1080
interfaces: [eth0]
rules:
  - direct to 10.0.0.0/8
  - { action: drop, protocol: tcp, dport: 25, log: true }
  - proxy tcp dport 80,443 not uid 1000 via socks
idle-timeout: 30m`

/** tproxy.yaml(5). */
export function configPage(version: string): string {
  const { properties = {} } = jsonSchema() as Schema
  return manualPage(
    {
      name: 'tproxy.yaml',
      section: 5,
      summary: 'configuration of tproxy-run',
      parts: [
        heading('DESCRIPTION'),
        paragraph(
          'A YAML file for tproxy-run --config. Plugins and rules of the command line come before those of the file; its other options take their place. tproxy-run check tells all that is wrong with a file, by line and column. At a reload rules, plugins, default-action and default-verdict are read again; what else changed needs a restart, and is named. Open connections stay as they are.',
        ),
        heading('KEYS'),
        ...Object.entries(properties).map(([name, schema]) => key(name, schema)),
        subheading('Keys of a plugin'),
        ...keysOf(properties['plugins']?.items),
        subheading('Keys of a rule'),
        paragraph(
          'A rule is a text, as --rule takes it, or a mapping. A value may be a list of which one has to match.',
        ),
        ...keysOf(properties['rules']?.items),
        heading('EXAMPLE'),
        verbatim(example),
        heading('SEE ALSO'),
        '.BR tproxy\\-run (1)',
      ],
    },
    version,
  )
}

function keysOf(schema: Schema | undefined): string[] {
  const mapping = schema?.anyOf?.find(({ properties }) => properties !== undefined)
  return Object.entries(mapping?.properties ?? {}).map(([name, each]) => key(name, each))
}

function key(name: string, schema: Schema): string {
  return term(`${bold(name)}: ${italic(kind(schema))}`, `${schema.description ?? ''}.`)
}

/** What can stand there. */
function kind({ anyOf, enum: words, const: only, pattern, type, items }: Schema): string {
  if (anyOf !== undefined) return [...new Set(anyOf.map(kind))].join(' | ')
  if (words !== undefined) return words.join(' | ')
  if (only !== undefined) return String(only)
  if (pattern !== undefined) return redirects[pattern] ?? 'text'
  if (items !== undefined) return `[${kind(items)}, …]`
  const names: Readonly<Record<string, string>> = {
    string: 'text',
    object: 'mapping',
    boolean: 'true | false',
    integer: 'number',
  }
  return [type ?? 'anything']
    .flat()
    .map((each) => names[each] ?? each)
    .join(' | ')
}

const redirects: Readonly<Record<string, string>> = {
  '^redirect:[^\\s/]{1,15}$': 'redirect:IFACE',
  '^redirect-into:[^\\s/]{1,15}$': 'redirect-into:IFACE',
}
