import { type Completion, type Flag, type Flags, flags } from '../options.ts'
import { type Shell, subcommands } from './commands.ts'

/** A script by which a shell completes command lines of tproxy-run. */
export function completion(shell: Shell): string {
  return { bash, zsh, fish }[shell]()
}

const names = Object.keys(subcommands).join(' ')
const written = (set: Flags) =>
  Object.entries(set).flatMap(([name, { short }]) => [
    `--${name}`,
    ...(short === undefined ? [] : [`-${short}`]),
  ])
const takingValues = (set: Flags) =>
  Object.fromEntries(Object.entries(set).filter(([, { type }]) => type === 'string'))
const brief = (text: string) => text.replace(/[;:.].*$/, '')

function bash(): string {
  const generate = (complete: Completion | undefined) => {
    if (complete === undefined) return 'COMPREPLY=()'
    if (complete === 'file') return 'mapfile -t COMPREPLY < <(compgen -f -- "$current")'
    const by = {
      interface: '-W "$(ls /sys/class/net)"',
      user: '-u',
      group: '-g',
    } as const
    const kind = typeof complete === 'string' ? by[complete] : `-W '${complete.join(' ')}'`
    return `mapfile -t COMPREPLY < <(compgen ${kind} -- "$current")`
  }
  const values = (set: Flags) =>
    Object.entries(takingValues(set)).map(([name, flag]) => {
      const complete = flag.type === 'string' ? flag.complete : undefined
      return `    ${written({ [name]: flag }).join(' | ')}) ${generate(complete)}; return ;;`
    })
  const cases = Object.entries(subcommands).map(
    ([name, { flags: own, complete }]) => `  ${name})
    case $previous in
${values(own).join('\n')}
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W '${written(own).join(' ')}' -- "$current") ;;
    *) ${generate(complete)} ;;
    esac
    ;;`,
  )
  return `# Completes tproxy-run in bash: source <(tproxy-run completion bash)
_tproxy_run() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} word= first= at
  COMPREPLY=()
  # bash has made three words of --option=value.
  if [[ $current == = ]]; then current=; elif [[ $previous == = ]]; then previous=\${COMP_WORDS[COMP_CWORD - 2]}; fi
  for ((at = 1; at < COMP_CWORD; at++)); do
    case \${COMP_WORDS[at]} in
    --) first=-- && ((at++)); break ;;
    ${written(takingValues(flags)).join(' | ')}) if [[ \${COMP_WORDS[at + 1]} == = ]]; then ((at += 2)); else ((at++)); fi ;;
    -*) ;;
    *) first=\${COMP_WORDS[at]}; break ;;
    esac
  done
  case $first in
  '')
    case $previous in
${values(flags).join('\n')}
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W '${written(flags).join(' ')}' -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W '${names}' -- "$current"; compgen -c -- "$current") ;;
    esac
    ;;
${cases.join('\n')}
  *)
    # The command's own arguments, where bash-completion knows them.
    if ((at == COMP_CWORD)); then
      mapfile -t COMPREPLY < <(compgen -c -- "$current")
    elif declare -F _command_offset >/dev/null; then
      _command_offset "$at"
    else
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
    ;;
  esac
}
complete -o bashdefault -F _tproxy_run tproxy-run`
}

function zsh(): string {
  const quoted = (text: string) => text.replaceAll("'", "'\\''")
  const action = (complete: Completion | undefined) => {
    if (complete === undefined) return ''
    if (typeof complete !== 'string') return `(${complete.join(' ')})`
    return { file: '_files', interface: '_net_interfaces', user: '_users', group: '_groups' }[complete]
  }
  const value = (flag: Flag) =>
    flag.type === 'string' ? `:${flag.value.replaceAll(/[[\]:]/g, '')}:${action(flag.complete)}` : ''
  const specs = (set: Flags) =>
    Object.entries(set)
      .map(([name, flag]) => {
        const says = `[${quoted(brief(flag.says).replaceAll(/[[\]]/g, ''))}]${value(flag)}`
        const long = `--${name}${flag.type === 'string' ? '=' : ''}`
        return flag.short === undefined
          ? `'*${long}${says}'`
          : `'*'{-${flag.short}${flag.type === 'string' ? '+' : ''},${long}}'${says}'`
      })
      .join(' \\\n      ')
  const cases = Object.entries(subcommands).map(
    ([name, { flags: own, complete }]) => `    ${name})
      _arguments -s \\
      ${specs(own)}${complete === undefined ? '' : ` \\\n      '*: :${action(complete)}'`} ;;`,
  )
  return `#compdef tproxy-run
# Completes tproxy-run in zsh: tproxy-run completion zsh >/usr/local/share/zsh/site-functions/_tproxy-run
_tproxy-run() {
  local context state state_descr line
  typeset -A opt_args
  _arguments -s -S \\
      ${specs(flags)} \\
      '(-)1: :->first' '*:: :->rest' && return
  case $state in
  first) _alternative 'subcommands:subcommand:(${names})' 'commands:command:_command_names -e' ;;
  rest)
    case $words[1] in
${cases.join('\n')}
    *) _normal ;;
    esac ;;
  esac
}
# Both where it is found by its name, and where it is sourced.
if [ "$funcstack[1]" = _tproxy-run ]; then _tproxy-run "$@"; else compdef _tproxy-run tproxy-run; fi`
}

function fish(): string {
  const quoted = (text: string) => `'${text.replaceAll("'", "\\'")}'`
  const action = (complete: Completion | undefined) => {
    if (complete === undefined) return ' -x'
    if (complete === 'file') return ' -r -F'
    if (typeof complete !== 'string') return ` -x -a '${complete.join(' ')}'`
    const by = {
      interface: '(ls /sys/class/net)',
      user: '(__fish_complete_users)',
      group: '(__fish_complete_groups)',
    } as const
    return ` -x -a '${by[complete]}'`
  }
  const lines = (condition: string, set: Flags) =>
    Object.entries(set).map(([name, flag]) => {
      const short = flag.short === undefined ? '' : ` -s ${flag.short}`
      const value = flag.type === 'string' ? action(flag.complete) : ''
      return `complete -c tproxy-run -n ${quoted(condition)} -l ${name}${short}${value} -d ${quoted(brief(flag.says))}`
    })
  const own = Object.entries(subcommands).flatMap(([name, { flags: set, complete, forms }]) => [
    `complete -c tproxy-run -n __tproxy_run_first -a ${name} -d ${quoted(brief(Object.values(forms)[0] ?? ''))}`,
    ...lines(`__tproxy_run_is ${name}`, set),
    ...(complete === undefined
      ? []
      : [`complete -c tproxy-run -n '__tproxy_run_is ${name}'${action(complete).replace(' -r', '')}`]),
  ])
  return `# Completes tproxy-run in fish: tproxy-run completion fish >~/.config/fish/completions/tproxy-run.fish
function __tproxy_run_words
    # What stands before the cursor from the first word on that is no option of ours.
    set -l words (commandline -opc)[2..]
    while set -q words[1]
        switch $words[1]
            case --
                set -e words[1]
                break
            case ${written(takingValues(flags)).join(' ')}
                set -e words[1]
            case '-*'
            case '*'
                break
        end
        set -e words[1]
    end
    string join \\n -- $words
end
function __tproxy_run_first
    test -z "$(__tproxy_run_words)"
end
function __tproxy_run_is
    set -l words (__tproxy_run_words)
    test "$words[1]" = $argv[1]
end
function __tproxy_run_command
    set -l words (__tproxy_run_words)
    set -q words[1]; and not contains -- $words[1] ${names}
end
complete -c tproxy-run -f
complete -c tproxy-run -n __tproxy_run_first -a '(__fish_complete_command)'
complete -c tproxy-run -n __tproxy_run_command -a '(complete -C (string join -- " " (string escape -- (__tproxy_run_words)) (commandline -ct)))'
${[...lines('__tproxy_run_first', flags), ...own].join('\n')}`
}
