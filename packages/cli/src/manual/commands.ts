import { doctorFlags } from '../doctor/flags.ts'
import { answerFlags, type Completion, type Flags, selfFlags } from '../options.ts'
import { explainFlags, reloadFlags, showFlags, statusFlags } from '../rules/invocation.ts'
import { topFlags } from '../top/invocation.ts'
import { traceFlags } from '../trace/invocation.ts'

/** A word in place of the command, with which something else is done. */
export interface Subcommand {
  readonly flags: Flags
  /** Which of them go with a form, where not all do. */
  readonly flagsOf?: Readonly<Record<string, Flags>>
  /** What can follow it. */
  readonly complete?: Completion
  /** And what such a word. */
  readonly next?: Readonly<Record<string, Completion>>
  /** How it is written, and what it does. */
  readonly forms: Readonly<Record<string, string>>
}

export const shells = ['bash', 'zsh', 'fish'] as const
export type Shell = (typeof shells)[number]

const explainForm = 'rules explain tcp 192.0.2.1 203.0.113.10:443 --uid 1000'

/** By name, in the order in which they are told. */
export const subcommands: Readonly<Record<string, Subcommand>> = {
  status: {
    flags: statusFlags,
    forms: { status: 'how many connections the one that runs has, in the kernel and relayed' },
  },
  top: {
    flags: topFlags,
    forms: {
      top: 'its connections, live: --sort KEY (down), --interval T (1s), --count N; without a terminal, or with --json, one line of JSON each time',
    },
  },
  trace: {
    flags: traceFlags,
    forms: {
      'trace ADDRESS[:PORT]':
        'what becomes of packets from and to an address, or one of its ports, in the one that runs: what each of our programs in the kernel decides, in order, and why; and its connections. --count N: so many lines',
    },
  },
  rules: {
    flags: { ...showFlags, ...explainFlags },
    flagsOf: { rules: showFlags, [explainForm]: explainFlags, 'rules check FILE': answerFlags },
    complete: ['check', 'explain'],
    next: { check: 'file' },
    forms: {
      rules: 'what each rule of the one that runs counted; --watch: every second',
      [explainForm]:
        'which rule wins and why; also --gid, --cgroup, --process, --interface, --mark, --dscp. With --config, --rules or --rule: by those, without privileges',
      'rules check FILE':
        'all that is wrong with a file of rules on this host, and rules of no use; with a .yaml, what check does. Exit code 1 if it would be refused',
    },
  },
  reload: {
    flags: reloadFlags,
    forms: {
      reload:
        'has the one that runs read --config and --rules again: rules, plugins and defaults, as SIGHUP does without a command. Open connections keep their decision; --reset ends those that are now decided differently',
    },
  },
  check: {
    flags: answerFlags,
    complete: 'file',
    forms: {
      'check [FILE]':
        'all that is wrong with a configuration file on this host, and rules of no use, by line and column; applies nothing. Exit code 1 if it would be refused. FILE: /etc/tproxy/tproxy.yaml, unless it is given',
    },
  },
  doctor: {
    flags: doctorFlags,
    forms: {
      doctor:
        'what this machine lacks, and how to add it; of interfaces, fastpath and routing, what --config and these options choose. Exit code 1 if something is missing',
    },
  },
  clean: {
    flags: answerFlags,
    forms: {
      clean:
        'undoes what a killed tproxy-run left behind, which changes no traffic; and resets the connections that --keep left',
    },
  },
  completion: {
    flags: selfFlags,
    complete: shells,
    forms: {
      'completion SHELL': `what completes command lines of ${shells.join(', ')}; see docs/install.md`,
    },
  },
}
