import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, describe, expect, it } from 'vitest'
import type { Shell } from './commands.ts'
import { completion } from './completion.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-completion-`)
writeFileSync(`${directory}/some.yaml`, '')
afterAll(() => rmSync(directory, { recursive: true }))
const run = (command: string, ...args: readonly string[]) =>
  execFileSync(command, args, {
    encoding: 'utf8',
    cwd: directory,
    env: { PATH: process.env['PATH'], HOME: directory, TERM: 'dumb' },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 20_000,
  })

/** In a terminal of its own, for zsh completes nowhere else. */
const zshTerminal = `zmodload zsh/zpty; zpty z "cd $PWD; zsh -f -i"
zpty -w z 'source ./rc.zsh'; zpty -r -m z out '*READY*'
zpty -w -n z "$1"$'\\t'; zpty -r -m z out '*DONE*'
print -r -- $out; zpty -d z`

/** Prints what is offered in place of showing it. */
const zshListing = `PROMPT=; fpath=($PWD $fpath); autoload -U compinit; compinit -D -u
compadd() {
  local -a hits
  [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]] || { builtin compadd -A hits "$@"; print -r -- "HIT "\${^hits} }
  builtin compadd "$@"
}
show() { local -a unused; _main_complete; print DONE; exit }
zle -C show complete-word show
bindkey '^I' show
print READY
`

/** Words of a command line, the last of which is completed; with what a shell offers for it. */
const offers: Readonly<Record<Shell, (line: string) => string[]>> = {
  bash(line) {
    // As readline takes it apart: = is a word of its own.
    const words = line
      .split(' ')
      .flatMap((word) => word.split(/(=)/).filter((part, at) => part !== '' || at === 0))
    const script = `${completion('bash')}
COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
_tproxy_run; printf '%s\\n' "\${COMPREPLY[@]}"`
    return run('bash', '--norc', '-c', script).trim().split('\n')
  },
  zsh(line) {
    writeFileSync(`${directory}/_tproxy-run`, completion('zsh'))
    writeFileSync(`${directory}/rc.zsh`, zshListing)
    const out = run('zsh', '-fc', zshTerminal, 'zsh', line)
    return [...out.matchAll(/HIT (\S+)/g)].map(([, word = '']) => word)
  },
  fish: (line) =>
    run('fish', '--no-config', '-c', `${completion('fish')}\ncomplete -C '${line}'`)
      .trim()
      .split('\n')
      .map((row) => row.split('\t')[0] ?? ''),
}

describe.each(['bash', 'zsh', 'fish'] as const)('completion in %s', (shell) => {
  const offered = offers[shell]
  it('offers options', () => {
    expect(offered('tproxy-run --inter').join()).toBe('--interface')
  })
  it('offers what an option can be', () => {
    expect(offered('tproxy-run --fastpath ')).toEqual(expect.arrayContaining(['to-proxy', 'both', 'off']))
    expect(offered('tproxy-run -i ')).toEqual(expect.arrayContaining(['lo']))
    expect(offered('tproxy-run --config ')).toEqual(expect.arrayContaining(['some.yaml']))
  })
  it('offers subcommands, and theirs', () => {
    for (const name of ['status', 'completion'])
      expect(offered(`tproxy-run -v --config some.yaml ${name.slice(0, 4)}`)).toContain(name)
    expect(offered('tproxy-run rules ')).toEqual(expect.arrayContaining(['check', 'explain']))
    expect(offered('tproxy-run reload --').join(' ')).toMatch(/--reset\b/)
    expect(offered('tproxy-run reload --').join(' ')).not.toMatch(/--plugin\b/)
  })
  it('offers commands behind the options, and files behind a command', () => {
    expect(offered('tproxy-run --plugin socks -- setpri')).toEqual(
      expect.arrayContaining([expect.stringMatching(/setpriv$/)]),
    )
    expect(offered('tproxy-run cat ')).toEqual(expect.arrayContaining(['some.yaml']))
  })
})

it('takes --option=value for what it is', () => {
  expect(offers.bash('tproxy-run --fastpath=b')).toEqual(['both'])
})
