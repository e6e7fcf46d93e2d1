/** How we are to end: with an exit code, or by the signal that ended the command. */
export type Ending = { readonly code: number } | { readonly signal: NodeJS.Signals }

/** Exit codes of our own, as env(1), timeout(1) and docker-run(1) have them. */
export const exitCode = { failed: 125, notExecutable: 126, notFound: 127 } as const
