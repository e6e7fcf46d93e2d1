import { expect } from 'vitest'
import type { Program, Result } from './host.ts'
import type { World } from './world.ts'

/** Runs tproxy-run in the client, to its end. */
export async function run(
  world: World,
  args: readonly string[],
  env: NodeJS.ProcessEnv = {},
): Promise<Result> {
  await using program = world.run(args, { input: '', env })
  return await program.exited
}

/** Starts one, which says what it does as lines of JSON, and waits until it intercepts. */
export async function start(world: World, args: readonly string[]): Promise<Program> {
  const program = world.run(['--json', ...args], { input: '' })
  await program.until((p) => p.events.some(({ event }) => event === 'ready'), 'a ready line')
  return program
}

/** The answer to a command that asks one that runs. */
// biome-ignore lint: a test knows what was printed
export async function json(world: World, ...args: readonly string[]): Promise<any> {
  const { code, stdout, stderr } = await run(world, [...args, '--json'])
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
  return JSON.parse(stdout)
}
