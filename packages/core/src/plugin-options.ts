import type { z } from 'zod'
import { TproxyError } from './errors.ts'
import { nearest } from './rules/nearest.ts'

interface Problem {
  readonly text: string
  readonly hint: string | undefined
}

/** Checks options of the plugin `name`. Throws `E_OPTION`, which names all that are wrong and what they should be. */
export function validOptions<Schema extends z.ZodObject>(
  name: string,
  schema: Schema,
  given: unknown,
): z.output<Schema> {
  // Strict: an option that nobody reads is a mistake.
  const { data, error } = schema.strict().safeParse(given)
  if (error === undefined) return data as z.output<Schema>
  const problems = error.issues.flatMap((issue) => describe(issue, { name, fields: schema.shape, given }))
  const hints = new Set(problems.flatMap(({ hint }) => hint ?? []))
  throw new TproxyError('E_OPTION', problems.map(({ text }) => text).join('; '), {
    ...(hints.size > 0 && { hint: [...hints].join('; ') }),
    cause: error,
  })
}

/** No value is repeated: it may be a secret. */
function describe(
  issue: z.core.$ZodIssue,
  { name, fields, given }: { name: string; fields: z.core.$ZodShape; given: unknown },
): Problem[] {
  const { path } = issue
  if (issue.code === 'unrecognized_keys' && path.length === 0)
    return issue.keys.map((key) => ({ text: `${name} has no option ${key}`, hint: instead(key, fields) }))
  const [field] = path
  if (field === undefined) return [{ text: `options of ${name}: ${issue.message}`, hint: undefined }]
  const about = (fields[String(field)] as z.ZodType | undefined)?.description
  const option = `option ${path.map((key, at) => (at === 0 ? key : `[${String(key)}]`)).join('')} of ${name}`
  return [
    {
      text: valueAt(given, path) === undefined ? `${option} is missing` : `${option}: ${issue.message}`,
      hint: about === undefined ? undefined : `${String(field)} is ${about}`,
    },
  ]
}

function instead(key: string, fields: object): string {
  const known = Object.keys(fields)
  const near = nearest(key, known)
  return near === undefined ? `its options are ${known.join(', ')}` : `did you mean ${near}?`
}

function valueAt(value: unknown, path: readonly PropertyKey[]): unknown {
  return path.reduce<unknown>((at, key) => (at as Record<PropertyKey, unknown> | undefined)?.[key], value)
}
