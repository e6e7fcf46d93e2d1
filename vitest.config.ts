import { defineConfig } from 'vitest/config'

const ssr = { resolve: { conditions: ['@tproxy/source'] } }

export default defineConfig({
  test: {
    projects: [
      { ssr, test: { name: 'unit', include: ['packages/*/src/**/*.test.ts'] } },
      {
        ssr,
        test: {
          name: 'kernel',
          include: ['test/**/*.test.ts'],
          pool: 'forks',
          fileParallelism: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
        },
      },
    ],
  },
})
