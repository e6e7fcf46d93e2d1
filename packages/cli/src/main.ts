import { reason } from '@tproxy/core'
import manifest from '../package.json' with { type: 'json' }
import { cleanUp } from './clean.ts'
import { type Ending, exitCode } from './ending.ts'
import { failure } from './finding.ts'
import { type CommandForm, type InterfaceForm, type Invocation, parseInvocation } from './invocation.ts'
import { jsonLine } from './json-line.ts'
import { complain, leavePipesBlocking } from './output.ts'
import { Problems } from './problems.ts'
import { makeReport } from './report.ts'
import { runCommand } from './run-command.ts'
import { runInterface } from './run-interface.ts'
import { clean } from './scrub.ts'
import { dieBy, ignoreAsCaller } from './signals.ts'
import { reasonAndPlace } from './thrown-at.ts'

/** How long undoing may take after something unforeseen; then the kernel undoes what it can, and the next start the rest. */
const lastResortMs = 15_000

process.title = 'tproxy-run'
// By default Node opens its debugger at this signal.
process.on('SIGUSR1', () => {})
// Bugs, ours or a plugin's: the connections end, what was set up is undone, and we say why.
const { promise: fatal, reject } = Promise.withResolvers<never>()
fatal.catch(() => {})
for (const event of ['uncaughtException', 'unhandledRejection'])
  process.on(event, (error: unknown) => {
    reject(
      new Error(`unexpected error, all connections are closed: ${reasonAndPlace(error)}`, { cause: error }),
    )
    setTimeout(() => {
      complain(clean(`unexpected error, and what was set up could not be undone: ${reason(error)}`))
      process.exit(exitCode.failed)
    }, lastResortMs).unref()
  })

try {
  const ending = await answer(parseInvocation(process.argv.slice(2)))
  if ('signal' in ending) dieBy(ending.signal)
  process.exit(ending.code)
} catch (error) {
  for (const text of error instanceof Problems ? error.problems : [reason(error)]) complain(clean(text))
  process.exit(exitCode.failed)
}

/** Who asked for JSON reads there, too, why there is no answer. */
async function answer(invocation: Invocation): Promise<Ending> {
  try {
    return await run(invocation)
  } catch (error) {
    if ('json' in invocation && invocation.json)
      console.log(jsonLine({ event: 'error', ...failure(error) }, clean))
    throw error
  }
}

async function run(invocation: Invocation): Promise<Ending> {
  switch (invocation.form) {
    case 'help':
      console.log((await import('./help.ts')).help())
      return { code: 0 }
    case 'version':
      console.log(`tproxy-run ${manifest.version}`)
      return { code: 0 }
    case 'doctor':
      return (await import('./doctor/doctor.ts')).doctor(invocation.options)
    case 'clean':
      return cleanUp(invocation.options)
    case 'completion':
      console.log((await import('./manual/completion.ts')).completion(invocation.shell))
      return { code: 0 }
    case 'check':
      return (await import('./check/check.ts')).check(invocation)
    case 'rules':
      return rules(invocation)
    case 'status':
      return (await import('./status.ts')).showStatus(invocation)
    case 'top':
      return (await import('./top/top.ts')).top(invocation, fatal)
    case 'trace':
      return (await import('./trace/trace.ts')).trace(invocation)
    case 'reload':
      return (await import('./rules/reload.ts')).reload(invocation)
    default:
      return intercept(invocation)
  }
}

async function rules(invocation: Extract<Invocation, { form: 'rules' }>): Promise<Ending> {
  switch (invocation.to) {
    case 'show':
      return (await import('./rules/show.ts')).showRules(invocation)
    case 'check':
      return (await import('./rules/check.ts')).checkRules(invocation)
    default:
      return (await import('./rules/explain.ts')).explainPacket(invocation)
  }
}

async function intercept(invocation: CommandForm | InterfaceForm): Promise<Ending> {
  await using _written = leavePipesBlocking()
  const ignored = ignoreAsCaller()
  const report = makeReport(invocation)
  try {
    const ending =
      invocation.form === 'command'
        ? await runCommand(invocation, { report, fatal, ignored })
        : await runInterface(invocation, { report, fatal, ignored })
    report.exit(ending)
    return ending
  } catch (error) {
    report.exit({ code: exitCode.failed }, error)
    throw error
  } finally {
    await report.close()
  }
}
