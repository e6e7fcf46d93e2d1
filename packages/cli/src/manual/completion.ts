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
/** Those of all subcommands, too. */
const valued = written(
  takingValues(Object.assign({}, flags, ...Object.values(subcommands).map((each) => each.flags)) as Flags),
)
const brief = (text: string) => text.replace(/[;:.]\s.*$/, '')

/** What can be given to an option: a plugin is one of some words, or a path. */
type Value = Completion | { readonly fileOr: string } | undefined
function valueOf(name: string, flag: Flag): Value {
  const complete = flag.type === 'string' ? flag.complete : undefined
  return name === 'plugin' ? { fileOr: [complete].flat().join(' ') } : complete
}
const isFileOr = (value: Value) => typeof value === 'object' && 'fileOr' in value

function bash(): string {
  const generate = (complete: Value) => {
    if (complete === undefined) return 'COMPREPLY=()'
    const words = isFileOr(complete) ? `compgen -W '${complete.fileOr}' -- "$current"; ` : ''
    if (complete === 'file' || isFileOr(complete))
      return `compopt -o filenames; mapfile -t COMPREPLY < <(${words}compgen -f -- "$current")`
    // Not by -W, which runs what a name says in $(…).
    if (complete === 'interface')
      return 'COMPREPLY=(); for each in /sys/class/net/*; do each=${each##*/}; [[ $each != "$current"* ]] || COMPREPLY+=("$each"); done'
    const by = {
      user: '-u',
      group: '-g',
    } as const
    const kind = typeof complete === 'string' ? by[complete] : `-W '${complete.join(' ')}'`
    return `mapfile -t COMPREPLY < <(compgen ${kind} -- "$current")`
  }
  const values = (set: Flags) =>
    Object.entries(takingValues(set)).map(
      ([name, flag]) =>
        `    ${written({ [name]: flag }).join(' | ')}) ${generate(valueOf(name, flag))}; return ;;`,
    )
  const cases = Object.entries(subcommands).map(
    ([name, { flags: own, complete, next = {} }]) => `  ${name})
    case $previous in
${values(own).join('\n')}
    esac
    case $current in
    -*) mapfile -t COMPREPLY < <(compgen -W '${written(own).join(' ')}' -- "$current") ;;
    *)
      case $second in
      '') ${generate(complete)} ;;
${Object.entries(next)
  .map(([word, then]) => `      ${word}) ${generate(then)} ;;\n`)
  .join('')}      esac
      ;;
    esac
    ;;`,
  )
  return `# Completes tproxy-run in bash: source <(tproxy-run completion bash)
_tproxy_run() {
  local words=() starts=() rest=$COMP_LINE index last current previous first= second= at after each
  COMPREPLY=()
  # bash makes several words of what has = or : in it.
  for ((index = 0; index <= COMP_CWORD; index++)); do
    if ((index == 0)) || [[ $rest == [[:space:]]* ]]; then
      words+=("\${COMP_WORDS[index]}") starts+=("$index")
    else
      words[-1]+=\${COMP_WORDS[index]}
    fi
    rest=\${rest#*"\${COMP_WORDS[index]}"}
  done
  last=$((\${#words[@]} - 1)) current=\${COMP_WORDS[COMP_CWORD]#=} previous=\${words[last - 1]}
  if [[ \${words[last]} == --*=* ]]; then previous=\${words[last]%%=*}; fi
  for ((at = 1; at < last; at++)); do
    case \${words[at]} in
    --) first=-- && ((at++)); break ;;
    ${valued.join(' | ')}) ((at++)) ;;
    -*) ;;
    *) first=\${words[at]}; break ;;
    esac
  done
  for ((after = at + 1; after < last; after++)); do
    case \${words[after]} in
    ${valued.join(' | ')}) ((after++)) ;;
    -*) ;;
    *) second=\${words[after]}; break ;;
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
    if ((at == last)); then
      mapfile -t COMPREPLY < <(compgen -c -- "$current")
    elif declare -F _command_offset >/dev/null; then
      _command_offset "\${starts[at]}"
    else
      compopt -o filenames
      mapfile -t COMPREPLY < <(compgen -f -- "$current")
    fi
    ;;
  esac
}
complete -o bashdefault -F _tproxy_run tproxy-run`
}

function zsh(): string {
  const quoted = (text: string) => text.replaceAll("'", "'\\''")
  const action = (complete: Value) => {
    if (complete === undefined) return ''
    if (isFileOr(complete))
      return `{_alternative "words\\:word\\:(${complete.fileOr})" "files\\:file\\:_files"}`
    if (typeof complete !== 'string') return `(${complete.join(' ')})`
    return { file: '_files', interface: '_net_interfaces', user: '_users', group: '_groups' }[complete]
  }
  const value = (name: string, flag: Flag) =>
    flag.type === 'string' ? `:${flag.value.replaceAll(/[[\]:]/g, '')}:${action(valueOf(name, flag))}` : ''
  const specs = (set: Flags) =>
    Object.entries(set)
      .map(([name, flag]) => {
        const says = `[${quoted(brief(flag.says).replaceAll(/[[\]]/g, ''))}]${value(name, flag)}`
        const long = `--${name}${flag.type === 'string' ? '=' : ''}`
        return flag.short === undefined
          ? `'*${long}${says}'`
          : `'*'{-${flag.short}${flag.type === 'string' ? '+' : ''},${long}}'${says}'`
      })
      .join(' \\\n      ')
  const cases = Object.entries(subcommands).map(
    ([name, { flags: own, complete, next = {} }]) => `    ${name})
      _arguments -s \\
      ${[
        specs(own),
        ...(complete === undefined ? [] : [`'1: :${action(complete)}'`]),
        ...Object.entries(next).map(([word, then]) => `'2: :{[[ $line[1] == ${word} ]] && ${action(then)}}'`),
      ].join(' \\\n      ')} ;;`,
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
  const action = (complete: Value) => {
    if (complete === undefined) return ' -x'
    if (complete === 'file') return ' -r -F'
    if (isFileOr(complete)) return ` -r -F -a '${complete.fileOr}'`
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
      const value = flag.type === 'string' ? action(valueOf(name, flag)) : ''
      return `complete -c tproxy-run -n ${quoted(condition)} -l ${name}${short}${value} -d ${quoted(brief(flag.says))}`
    })
  const word = (before: string, complete: Completion) =>
    `complete -c tproxy-run -n '__tproxy_run_behind ${before}'${action(complete).replace(' -r', '')}`
  const own = Object.entries(subcommands).flatMap(([name, { flags: set, complete, next = {}, forms }]) => [
    `complete -c tproxy-run -n __tproxy_run_first -a ${name} -d ${quoted(brief(Object.values(forms)[0] ?? ''))}`,
    ...lines(`__tproxy_run_is ${name}`, set),
    ...(complete === undefined ? [] : [word(name, complete)]),
    ...Object.entries(next).map(([first, then]) => word(`${name} ${first}`, then)),
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
            case ${valued.join(' ')}
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
function __tproxy_run_behind
    # Whether these words stand before the cursor, and none but options beside.
    set -l words (__tproxy_run_words)
    set -l plain
    while set -q words[1]
        switch $words[1]
            case ${valued.join(' ')}
                set -e words[1]
            case '-*'
            case '*'
                set -a plain $words[1]
        end
        set -e words[1]
    end
    test "$plain" = "$argv"
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
