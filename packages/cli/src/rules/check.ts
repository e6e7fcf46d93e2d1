import { compileRules, reason } from '@tproxy/core'
import type { Ending } from '../ending.ts'
import { complain } from '../output.ts'
import { Problems } from '../problems.ts'
import { clean } from '../scrub.ts'
import { readFiles } from '../settings.ts'
import { describeShadows } from '../shadows.ts'

/** `tproxy-run rules check FILE`. */
export async function checkRules({ file, json }: { file: string; json: boolean }): Promise<Ending> {
  try {
    const { rules, defaultAction } = await readFiles(
      /\.ya?ml$/i.test(file) ? { config: file, rules: [] } : { config: undefined, rules: [{ file }] },
    )
    const tables = compiled(file, () => compileRules(rules, defaultAction))
    const { list, shadowed } = tables
    if (json)
      console.log(
        JSON.stringify({ event: 'check', valid: true, rules: rules.length, default: list.default, shadowed }),
      )
    else {
      const count = `${rules.length} rule${rules.length === 1 ? '' : 's'}`
      console.log(
        [`${file} is valid: ${count}, default ${list.default}`, ...describeShadows(tables)].join('\n'),
      )
    }
    return { code: 0 }
  } catch (error) {
    if (!(error instanceof Problems)) throw error
    const problems = error.problems.map((problem) => clean(problem))
    if (json) console.log(JSON.stringify({ event: 'check', valid: false, problems }))
    else for (const problem of problems) complain(problem)
    return { code: 1 }
  }
}

/** What this host does not know, such as a user, is a problem of the file too. */
function compiled<T>(file: string, compile: () => T): T {
  try {
    return compile()
  } catch (error) {
    throw new Problems([`${file}: ${reason(error)}`])
  }
}
