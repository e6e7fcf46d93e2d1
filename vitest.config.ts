import { defineConfig } from 'vitest/config'

// CI reads the numbers from a report beside the text.
const report = process.env['VITEST_JSON']

const ssr = { resolve: { conditions: ['@tproxy/source'] } }

/** Of these tests each host has a network namespace, a /run and a cgroup of its own: they do not see each other. */
const kernel = {
  globalSetup: 'test/rig/trial.ts',
  pool: 'forks' as const,
  testTimeout: 60_000,
  hookTimeout: 60_000,
  // A busy machine is no reason to fail; a second is the default.
  expect: { poll: { timeout: 10_000 } },
}

/** But these count what the whole machine has loaded, or what a processor does. */
const alone = ['bench', 'lifecycle', 'safety', 'scale', 'soak'].map((name) => `test/${name}.test.ts`)

export default defineConfig({
  test: {
    ...(report !== undefined && { reporters: ['default', 'json'], outputFile: { json: report } }),
    projects: [
      {
        ssr,
        test: {
          name: 'unit',
          include: ['packages/*/src/**/*.test.ts', 'test/unit/*.test.ts'],
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        ssr,
        test: {
          ...kernel,
          name: 'kernel',
          include: ['test/*.test.ts'],
          exclude: alone,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        ssr,
        test: {
          ...kernel,
          name: 'kernel-alone',
          include: alone,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
})
