import type { Report } from './report.ts'

/** What both forms of interception find. */
export interface Surroundings {
  readonly report: Report
  /** Rejects when something unforeseen happens. */
  readonly fatal: Promise<never>
  /** Signals that our caller ignored. */
  readonly ignored: readonly NodeJS.Signals[]
}
