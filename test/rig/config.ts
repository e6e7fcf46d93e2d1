import { writeFileSync } from 'node:fs'

/** Writes a configuration file with these rules, for wan0. */
export const writeConfig = (file: string, ...rules: readonly string[]): void =>
  writeFileSync(file, `interfaces: [wan0]\nrules:\n${rules.map((rule) => `  - ${rule}\n`).join('')}`)
