import { readFileSync } from 'node:fs'
import { openConfig } from '../config/open.ts'
import type { Ending } from '../ending.ts'
import { type Finding, locate } from '../finding.ts'
import { jsonLine } from '../json-line.ts'
import { unreadable } from '../rules-file.ts'
import { clean } from '../scrub.ts'
import { examine } from './examine.ts'

interface Form {
  readonly file: string
  readonly json: boolean
}

/** `tproxy-run check [FILE]`. Ends with 1 when a start with this file, on this host, would be refused. */
export function check(form: Form): Promise<Ending> {
  return tell(form, async (text) => {
    const config = openConfig(text)
    return [...config.errors, ...(await examine(config, form.file))]
  })
}

/** Tells what is found in the text of a file. */
export async function tell(
  { file, json }: Form,
  find: (text: string) => Finding[] | Promise<Finding[]>,
): Promise<Ending> {
  const findings = await findingsIn(file, find)
  const errors = findings.filter(({ severity }) => severity === 'error').length
  console.log(
    json
      ? jsonLine({ event: 'check', file, valid: errors === 0, findings: findings.map(flat) })
      : [...findings.map((finding) => line(file, finding)), summary(file, findings.length, errors)].join(
          '\n',
        ),
  )
  return { code: errors === 0 ? 0 : 1 }
}

async function findingsIn(file: string, find: Parameters<typeof tell>[1]): Promise<Finding[]> {
  let text: string
  try {
    text = readFileSync(file, 'utf8')
  } catch (error) {
    return [{ severity: 'error', place: undefined, message: unreadable(error), remedy: undefined }]
  }
  const found = await find(text)
  return found.toSorted(
    (a, b) => (a.place?.line ?? 0) - (b.place?.line ?? 0) || (a.place?.column ?? 0) - (b.place?.column ?? 0),
  )
}

/** As compilers write it, which editors know. */
function line(file: string, finding: Finding): string {
  return clean(locate(file, { ...finding, message: `${finding.severity}: ${finding.message}` }))
}

function flat({ severity, place, message, remedy }: Finding): object {
  return {
    severity,
    ...place,
    message: clean(message),
    ...(remedy !== undefined && { remedy: clean(remedy) }),
  }
}

function summary(file: string, findings: number, errors: number): string {
  const count = (number: number, word: string) => `${number} ${word}${number === 1 ? '' : 's'}`
  const warnings = findings - errors
  if (errors > 0) return `${file}: ${count(errors, 'error')}, ${count(warnings, 'warning')}`
  return `${file} is valid${warnings === 0 ? '' : `: ${count(warnings, 'warning')}`}`
}
