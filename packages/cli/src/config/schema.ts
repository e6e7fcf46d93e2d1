import { type Action, type Criteria, contradiction, type FastpathMode, misfit, type Rule } from '@tproxy/core'
import { z } from 'zod'
import { metricsForm, parseMetricsAddress } from '../metrics/address.ts'
import { leastConnectMs } from '../options.ts'
import { durationForm, misfitDuration } from '../quantities.ts'

/** What a configuration file says. Its keys are the command line's options, but for the two defaults. */
export interface ConfigFile {
  readonly plugins?: readonly (string | PluginMapping)[] | undefined
  readonly interfaces?: string | readonly string[] | undefined
  readonly rules?: readonly (string | Rule)[] | undefined
  readonly 'default-action'?: Action | undefined
  readonly 'default-verdict'?: 'direct' | 'drop' | undefined
  readonly carry?: 'splice' | 'relay' | undefined
  readonly keep?: boolean | undefined
  readonly names?: boolean | undefined
  readonly fastpath?: FastpathMode | undefined
  readonly metrics?: string | undefined
  readonly 'connect-timeout'?: string | number | undefined
  readonly 'idle-timeout'?: string | number | undefined
  readonly 'drain-timeout'?: string | number | undefined
  readonly user?: string | undefined
  readonly mark?: number | undefined
  readonly table?: number | undefined
  readonly priority?: number | undefined
}

interface PluginMapping {
  readonly name: string
  readonly argument?: string | undefined
  readonly options?: Readonly<Record<string, unknown>> | undefined
}

// The `error` of a schema is what is expected instead; with this it is all that there is to say.
const complete = { complete: true }
const word = (error: string) => z.string({ error }).min(1, { error })
const list = <T extends z.ZodType>(item: T, error: string) => z.array(item, { error }).min(1, { error })

type Field = Exclude<keyof Criteria, 'ip'>
const expected = (field: Field) => misfit(field, undefined) ?? ''
const fits = (field: Field) => (value: unknown) => misfit(field, value) === undefined

const words = (field: Field) => {
  const error = expected(field)
  const value = z.string({ error }).refine(fits(field), { error })
  return z.union([value, list(value, error)], { error }).optional()
}
const wordsOrNumbers = (field: Field) => {
  const error = expected(field)
  const value = z.union([z.string(), z.int()], { error }).refine(fits(field), { error })
  return z.union([value, list(value, error)], { error }).optional()
}

const criteria = {
  protocol: wordsOrNumbers('protocol').describe('tcp, udp, icmp, … or the number'),
  ip: z.literal([4, 6], { error: '4 or 6' }).optional().describe('The IP version'),
  from: words('from').describe('Source: 10.0.0.0/8, 2001:db8::1, 192.0.2.1-192.0.2.9'),
  to: words('to').describe('Destination: 10.0.0.0/8, 2001:db8::1, 192.0.2.1-192.0.2.9'),
  sport: wordsOrNumbers('sport').describe('Source port: 443, 8000-8999'),
  dport: wordsOrNumbers('dport').describe('Destination port: 443, 8000-8999'),
  interface: words('interface').describe('Interface that the packet leaves by'),
  uid: wordsOrNumbers('uid').describe('User of the program: 1000, 1000-1999, alice'),
  gid: wordsOrNumbers('gid').describe('Group of the program, for TCP: 1000, 1000-1999, staff'),
  cgroup: words('cgroup').describe('Cgroup with all that is below it: /user.slice, ssh.service'),
  process: words('process').describe('Name of the process, for TCP'),
  mark: wordsOrNumbers('mark').describe('Mark of the packet: 16, 0x10-0x1f'),
  dscp: wordsOrNumbers('dscp').describe('46, ef'),
}

const interfaceName = z.string().regex(/^[^\s/]{1,15}$/)
const action = z.union(
  [
    z.enum(['proxy', 'direct', 'drop', 'reject']),
    z.templateLiteral(['redirect:', interfaceName]),
    z.templateLiteral(['redirect-into:', interfaceName]),
  ],
  { error: 'an action: proxy, direct, drop, reject, redirect:IFACE or redirect-into:IFACE' },
)

const aRule = 'a rule, such as drop tcp dport 25, or a mapping with an action'
const rule = z.union(
  [
    word(aRule),
    z
      .strictObject({
        action: action.describe('What becomes of a packet that matches'),
        ...criteria,
        not: z
          .strictObject(criteria, { error: 'a mapping of what must not match' })
          .optional()
          .describe('What must not match: the same keys, from protocol to dscp'),
        via: word('the name of a plugin').optional().describe('With proxy: the plugin that decides'),
        log: z.boolean({ error: 'true or false' }).optional().describe('Report what this rule decides'),
      })
      .superRefine((given, context) => {
        const problem = contradiction(given)
        if (problem !== undefined)
          context.addIssue({
            code: 'custom',
            message: problem.message,
            path: [...problem.path],
            params: complete,
          })
      }),
  ],
  { error: aRule },
)

const aPlugin = 'a plugin: NAME, NAME=ARGUMENT, or a mapping with name, argument and options'
const plugin = z.union(
  [
    z.string().regex(/^[^=]/, { error: aPlugin }),
    z.strictObject({
      name: word('the name of a plugin').describe(
        'As --plugin takes it: socks, or the path of a module, from the directory of this file',
      ),
      argument: z.string({ error: 'text' }).optional().describe('As behind NAME= on the command line'),
      options: z
        .record(z.string(), z.unknown(), { error: 'a mapping of options' })
        .optional()
        .describe('For plugins made with definePlugin'),
    }),
  ],
  { error: aPlugin },
)

const interfaces = 'auto, all, or a list of interfaces'
const alone = (names: readonly string[]) =>
  names.length === 1 || !names.some((name) => name === 'auto' || name === 'all')
const aNumber = 'a number, such as 100 or 0x64'
const natural = z.int({ error: aNumber }).min(0, { error: aNumber }).optional()
const duration = (leastMs?: number) =>
  z
    .union([z.string(), z.number()], { error: durationForm })
    .refine((value) => misfitDuration(String(value), leastMs) === undefined, {
      error: ({ input }) => misfitDuration(String(input), leastMs),
    })
    .optional()

const schema = z.strictObject(
  {
    plugins: list(plugin, `a list of plugins`)
      .optional()
      .describe(
        'Asked in order; the first that answers decides. A path, as in ./office.ts, is taken from the directory of this file',
      ),
    interfaces: z
      .union(
        [
          word(interfaces),
          list(word('an interface'), interfaces).refine(alone, {
            error: 'auto and all stand alone',
            params: complete,
          }),
        ],
        { error: interfaces },
      )
      .optional()
      .describe('What to intercept: auto, all, or a list of names'),
    rules: z.array(rule, { error: 'a list of rules' }).optional().describe('The first that matches decides'),
    'default-action': action.optional().describe('For what no rule matches; proxy unless it is given'),
    'default-verdict': z
      .enum(['direct', 'drop'], { error: 'direct or drop' })
      .optional()
      .describe('For what no plugin decides; direct unless it is given'),
    carry: z
      .enum(['splice', 'relay'], { error: 'splice or relay' })
      .optional()
      .describe('In the kernel where that can be, or all in the process; splice unless it is given'),
    keep: z
      .boolean({ error: 'true or false' })
      .optional()
      .describe(
        'Whether connections in the kernel outlive tproxy-run, and the next one takes them over; not with a command',
      ),
    names: z
      .boolean({ error: 'true or false' })
      .optional()
      .describe(
        'Whether upstreams get the host name that a program speaks of, not the address; false unless it is given',
      ),
    fastpath: z
      .enum(['to-proxy', 'both', 'off'], { error: 'to-proxy, both or off' })
      .optional()
      .describe('Whose reads skip the network stack where the process carries bytes; off unless it is given'),
    metrics: z
      .string({ error: metricsForm })
      .refine((value) => parseMetricsAddress(value) !== undefined, { error: metricsForm })
      .optional()
      .describe('Where Prometheus finds metrics: HOST:PORT or unix:PATH; nowhere unless it is given'),
    'connect-timeout': duration(leastConnectMs).describe(
      'To reach an upstream or destination, in seconds or with a unit: 500ms, 5m, 2h; 30s unless it is given; socks and http give up after 10s',
    ),
    'idle-timeout': duration().describe('Without a byte, likewise, 0: never; 2h unless it is given'),
    'drain-timeout': duration().describe(
      'For connections to finish once it is stopped, likewise; 5s unless it is given',
    ),
    user: word('the name of a user').optional().describe('Whom the command runs as'),
    mark: natural.describe('Routing mark, should the default belong to somebody else'),
    table: natural.describe('Routing table'),
    priority: natural.describe('Priority of the routing rule'),
  },
  { error: 'a mapping, such as rules: [drop tcp dport 25]' },
)

/** Something that is not as expected, and where. */
export interface Issue {
  readonly path: readonly PropertyKey[]
  /** undefined for a key that has no meaning there. */
  readonly expected: string | undefined
  /** What else could stand in place of such a key. */
  readonly keys?: readonly string[]
  /** Then `expected` is all that there is to say. */
  readonly complete?: true
}

/** Checks a value against the schema. */
export function validate(
  value: unknown,
): { readonly file: ConfigFile } | { readonly issues: readonly Issue[] } {
  const { data, error } = schema.safeParse(value)
  return error === undefined ? { file: data } : { issues: error.issues.flatMap((issue) => simplify(issue)) }
}

/** The schema for editors. */
export function jsonSchema(): object {
  return z.toJSONSchema(schema, { io: 'input' })
}

/** Of alternatives, the one is told about whose kind of value was given. */
function simplify(issue: z.core.$ZodIssue, base: readonly PropertyKey[] = []): Issue[] {
  const path = [...base, ...issue.path]
  if (issue.code === 'unrecognized_keys')
    return issue.keys.map((key) => ({ path: [...path, key], expected: undefined, keys: keysAt(path) }))
  if (issue.code === 'invalid_union') {
    const meant = issue.errors.find((issues) =>
      issues.every((it) => it.path.length > 0 || it.code === 'unrecognized_keys'),
    )
    if (meant !== undefined) return meant.flatMap((it) => simplify(it, path))
  }
  const isComplete = issue.code === 'custom' && issue.params === complete
  return [{ path, expected: issue.message, ...(isComplete && { complete: true }) }]
}

function keysAt(path: readonly PropertyKey[]): string[] {
  if (path.length === 0) return Object.keys(schema.shape)
  if (path[0] === 'plugins') return ['name', 'argument', 'options']
  return path.at(-1) === 'not'
    ? Object.keys(criteria)
    : ['action', 'not', 'via', 'log', ...Object.keys(criteria)]
}
