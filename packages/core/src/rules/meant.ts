import { readFileSync } from 'node:fs'
import { actions, keywords } from './fields.ts'
import type { Criteria } from './model.ts'
import { nearest } from './nearest.ts'
import { named } from './values.ts'

/** Actions as other firewalls call them. */
const actionsElsewhere: Readonly<Record<string, string>> = {
  ...{ deny: 'drop', block: 'drop', discard: 'drop' },
  ...{ accept: 'direct', allow: 'direct', permit: 'direct', pass: 'direct', bypass: 'direct' },
  ...{ redirect: 'redirect:IFACE', refuse: 'reject' },
}

/** What rules match, as other firewalls and people call it. */
const keywordsElsewhere: Readonly<Record<string, string>> = {
  ...{ user: 'uid', group: 'gid', program: 'process', command: 'process', comm: 'process' },
  ...{ src: 'from', source: 'from', dst: 'to', dest: 'to', destination: 'to', host: 'to', port: 'dport' },
  ...{ dev: 'interface', oif: 'interface', oifname: 'interface', fwmark: 'mark', tos: 'dscp' },
}

/** The action that was probably meant. */
export const meantAction = (word: string): string | undefined =>
  named(actionsElsewhere, word) ?? nearest(word, actions)

/** The keyword that was probably meant. */
export const meantKeyword = (word: string): string | undefined =>
  named(keywordsElsewhere, word) ?? nearest(word, keywords)

/** What to write instead of a name where only numbers and addresses are taken; undefined for what is none. */
export function insteadOfName(field: keyof Criteria, word: string): string | undefined {
  if ((field === 'sport' || field === 'dport') && /^[a-z][a-z0-9-]*$/i.test(word))
    return `names of services are not known; write ${servicePort(word) ?? 'the number'}`
  if ((field === 'to' || field === 'from') && /^(?=.*[a-z])[\w*-]+(\.[\w-]+)*\.?$/i.test(word))
    return 'rules take addresses; names need a plugin: docs/names.md'
  return undefined
}

/** By services(5), which not every host has. */
function servicePort(name: string): string | undefined {
  try {
    const lines = readFileSync('/etc/services', 'utf8').split('\n')
    const entries = lines.map((line) => line.replace(/#.*/, '').trim().split(/\s+/))
    const found = entries.find(([service, , ...aliases]) => service === name || aliases.includes(name))
    return found?.[1]?.replace(/\/.*/, '')
  } catch {
    return undefined
  }
}
