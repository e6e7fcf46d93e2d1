import type { TransparentProxy } from '@tproxy/core'
import { Counter, Gauge, Histogram, Registry } from 'prom-client'

/** What is counted, as Prometheus reads it: https://prometheus.io/docs/instrumenting/exposition_formats/. */
export function makeMetrics(proxy: TransparentProxy): Registry {
  const registry = new Registry()
  const registers = [registry]
  const counter = (name: string, help: string, labelNames: string[] = [], collect?: (it: Counter) => void) =>
    new Counter({
      ...{ name: `tproxy_${name}`, help, labelNames, registers },
      ...(collect && {
        // What the kernel has counted replaces what it had.
        collect() {
          this.reset()
          collect(this)
        },
      }),
    })

  const opened = counter('sessions_total', 'Connections decided.', ['verdict', 'plugin'])
  const ended = counter('sessions_ended_total', 'Connections that ended.', [
    ...['how', 'verdict', 'plugin', 'carried'],
  ])
  const bytes = counter('session_bytes_total', 'Payload of connections that ended.', ['direction', 'carried'])
  const warnings = counter('warnings_total', 'Problems reported.')
  const decision = new Histogram({
    name: 'tproxy_decision_seconds',
    help: 'From a connection’s first packet to the verdict.',
    buckets: [0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10],
    registers,
  })
  proxy.warnings.subscribe(() => warnings.inc())
  proxy.sessions.subscribe((session) => {
    const verdict = session.verdict.kind
    const plugin = session.plugin ?? ''
    opened.inc({ verdict, plugin })
    decision.observe(session.decisionMs / 1000)
    void session.ended.then(({ carried, end, bytes: { sent, received } }) => {
      ended.inc({ how: end?.how ?? '', verdict, plugin, carried })
      bytes.inc({ direction: 'sent', carried }, sent)
      bytes.inc({ direction: 'received', carried }, received)
    })
  })

  new Gauge({
    name: 'tproxy_sessions',
    help: 'Connections now, by who carries them; adopted: of an earlier process, in the kernel.',
    labelNames: ['carried'],
    registers,
    collect() {
      for (const [carried, count] of Object.entries(proxy.carried)) this.set({ carried }, count)
      this.set({ carried: 'adopted' }, proxy.adopted.filter(({ lasts }) => lasts).length)
    },
  })
  counter('kernel_total', 'What the programs did, by reason.', ['program', 'reason'], (it) => {
    for (const [program, counts] of Object.entries(proxy.counters()))
      for (const [reason, count] of Object.entries(counts)) it.inc({ program, reason }, Number(count))
  })
  const { rules } = proxy
  if (rules === undefined) return registry
  const counts = (unit: 'packets' | 'bytes') =>
    counter(`rule_${unit}_total`, `Sent ${unit} that a rule decided; 0 is the default.`, ['rule'], (it) => {
      for (const count of rules.counts()) it.inc({ rule: String(count.number) }, Number(count[unit]))
    })
  counts('packets')
  counts('bytes')
  return registry
}
