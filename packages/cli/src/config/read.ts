import { readFileSync } from 'node:fs'
import type { Rule, RuleFinding } from '@tproxy/core'
import { locate } from '../finding.ts'
import { unreadable } from '../rules-file.ts'
import { openConfig } from './open.ts'
import type { ConfigFile } from './schema.ts'

/** A configuration file whose rules are all read. */
export type Config = Omit<ConfigFile, 'rules'> & { readonly rules: readonly Rule[] }

/** What {@link readConfig} has read. */
export interface ReadConfig {
  readonly config: Config
  /** Says of one of its rules what is wrong with it, with line and column. */
  readonly describe: (finding: RuleFinding) => string
}

/** Reads a configuration file, or tells all that is wrong with it as `file:line:column: expected …, got …`. */
export function readConfig(file: string): ReadConfig | { readonly problems: readonly string[] } {
  try {
    return parseConfig(readFileSync(file, 'utf8'), file)
  } catch (error) {
    return { problems: [`--config ${file}: ${unreadable(error)}`] }
  }
}

/** {@link readConfig} of a text. */
export function parseConfig(text: string, file: string): ReturnType<typeof readConfig> {
  const opened = openConfig(text)
  const { errors, sound, plugins, rules } = opened
  if (errors.length > 0) return { problems: errors.map((error) => locate(file, error)) }
  return {
    config: {
      ...sound,
      ...(plugins.length > 0 && { plugins: plugins.map(([, plugin]) => plugin) }),
      rules: rules.map(([, rule]) => rule),
    },
    describe: ({ rule, path, value, ...finding }) => {
      const whole = rule === 0 ? ['default-action'] : ['rules', rule - 1, ...path]
      return locate(file, { ...finding, place: opened.place(whole, value) })
    },
  }
}
