import { TproxyError } from '@tproxy/core'

/** All that is wrong with what was given, so that it can be mended at once. */
export class Problems extends TproxyError {
  readonly problems: readonly string[]

  constructor(problems: readonly string[]) {
    super('E_OPTION', problems.join('; '))
    this.problems = problems
  }
}
