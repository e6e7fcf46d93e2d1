/** Where metrics are served. */
export type MetricsAddress = { readonly host: string; readonly port: number } | { readonly path: string }

/** What {@link parseMetricsAddress} reads. */
export const metricsForm = 'HOST:PORT, such as 127.0.0.1:9464 or [::1]:9464, or unix:PATH'

/** undefined for what is none. */
export function parseMetricsAddress(text: string): MetricsAddress | undefined {
  const path = /^unix:(\/.+)$/.exec(text)?.[1]
  if (path !== undefined) return { path }
  const [, six, name, port] = /^(?:\[([0-9a-f:.]+)\]|([^\s:[\]/]+)):(\d{1,5})$/i.exec(text) ?? []
  const host = six ?? name
  return host === undefined || Number(port) < 1 || Number(port) > 65_535
    ? undefined
    : { host, port: Number(port) }
}
