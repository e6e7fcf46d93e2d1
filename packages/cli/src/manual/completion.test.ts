import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterAll, describe, expect, it } from 'vitest'
import type { Shell } from './commands.ts'
import { completion } from './completion.ts'

const directory = mkdtempSync(`${tmpdir()}/tproxy-completion-`)
writeFileSync(`${directory}/some.yaml`, '')
writeFileSync(`${directory}/office.ts`, '')
mkdirSync(`${directory}/folder`)
writeFileSync(`${directory}/folder/my.rules`, '')
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
    // As readline takes it apart: = and : are words of their own.
    const words = line
      .split(' ')
      .flatMap((word) => word.split(/([=:])/).filter((part, at) => part !== '' || at === 0))
    const script = `${completion('bash')}
compopt() { :; }
COMP_LINE='${line}' COMP_WORDS=(${words.map((word) => `'${word}'`).join(' ')}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1))
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

/** Types into a bash, in a terminal of zsh's, and returns the arguments that come of it. */
function typed(keys: string): string[] {
  writeFileSync(`${directory}/completion.bash`, completion('bash'))
  const terminal = `zmodload zsh/zpty; zpty b "cd $PWD; HISTFILE=/dev/null bash --norc --noprofile -i"
zpty -w b 'source ./completion.bash; tproxy-run() { printf "<%s>" "$@"; echo DO""NE; }; echo REA""DY'
zpty -r -m b out '*READY*'; zpty -w b "$1"; zpty -r -m b out '*DONE*'; print -r -- $out; zpty -d b`
  const out = run('zsh', '-fc', terminal, 'zsh', keys)
  return [...out.matchAll(/<([^<>]*)>/g)].map(([, argument = '']) => argument)
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
    expect(offered('tproxy-run --plugin socks=socks5://192.0.2.1:1080 rul')).toContain('rules')
  })
  it('offers each word once', () => {
    expect(offered('tproxy-run rules --json check s')).toEqual(['some.yaml'])
    expect(offered('tproxy-run rules check ').join(' ')).not.toMatch(/explain/)
  })
  it('offers names of plugins, and files that may be some', () => {
    expect(offered('tproxy-run --plugin soc')).toEqual(['socks'])
    expect(offered('tproxy-run --plugin ./off').join()).toMatch(/office\.ts$/)
  })
})

it.each(['zsh', 'fish'] as const)('says what an option is for, in %s, up to the end of a clause', (shell) => {
  const script = completion(shell)
  expect(script).toMatch(/['[]see tproxy\.yaml\(5\)['\]]/)
  expect(script).toMatch(/['[]for Prometheus, at http:\/\/HOST:PORT\/metrics, or unix:PATH['\]]/)
})

it('takes --option=value for what it is', () => {
  expect(offers.bash('tproxy-run --fastpath=b')).toEqual(['both'])
})

it('goes down into folders', () => {
  expect(typed('tproxy-run --config fol\tmy\t')).toEqual(['--config', 'folder/my.rules'])
  expect(typed('tproxy-run rules check fol\tmy\t')).toEqual(['rules', 'check', 'folder/my.rules'])
})
