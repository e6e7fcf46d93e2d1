import { defineConfig } from 'vitest/config'

// CI reads the numbers from a report beside the text.
const report = process.env['VITEST_JSON']

const ssr = { resolve: { conditions: ['@tproxy/source'] } }

export default defineConfig({
  test: {
    ...(report !== undefined && { reporters: ['default', 'json'], outputFile: { json: report } }),
    projects: [
      { ssr, test: { name: 'unit', include: ['packages/*/src/**/*.test.ts', 'test/unit/*.test.ts'] } },
      {
        ssr,
        test: {
          name: 'kernel',
          include: ['test/*.test.ts'],
          globalSetup: 'test/rig/trial.ts',
          pool: 'forks',
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
})
