import { emitKeypressEvents, type Key } from 'node:readline'
import { reason } from '@tproxy/core'
import { askOnce } from '../control/client.ts'
import type { Ending } from '../ending.ts'
import { listen } from '../signals.ts'
import type { TopForm } from './invocation.ts'
import { table, type View } from './table.ts'
import { watch } from './top.ts'
import { type SortKey, sorted, sortKeys, type Traffic } from './traffic.ts'

/**
 * The alternate screen, so that what was there comes back, without a cursor. Lines are cut by characters, of which a terminal
 * shows some two columns wide: what is too long is not to go on in the next line.
 */
const enter = '\u001b[?1049h\u001b[?25l\u001b[?7l'
const leave = '\u001b[?7h\u001b[?25h\u001b[?1049l'
const home = '\u001b[H'
const restOfLine = '\u001b[K'
const restOfScreen = '\u001b[J'

/** The table, until somebody quits, or something unforeseen is to be read. */
export async function showScreen(options: TopForm, fatal: Promise<never>): Promise<Ending> {
  const { stdin, stdout } = process
  const { promise: quit, resolve } = Promise.withResolvers<Ending>()
  const screen = new Screen(options, () => resolve({ code: 0 }))
  using _signals = listen(['SIGTERM', 'SIGINT', 'SIGHUP'], (signal) => resolve({ signal }))
  // The terminal is gone, and with it what there is to restore.
  for (const stream of [stdin, stdout]) stream.on('error', () => resolve({ signal: 'SIGHUP' }))
  const restore = () => {
    stdin.setRawMode(false)
    stdout.write(leave)
  }
  // Also when something unforeseen ends us.
  process.once('exit', restore)
  stdin.setRawMode(true)
  emitKeypressEvents(stdin)
  const draw = () => screen.draw()
  const press = (_text: string | undefined, key: Key) => screen.press(key)
  stdin.on('keypress', press)
  stdout.on('resize', draw)
  stdout.write(enter)
  try {
    return await Promise.race([quit, screen.follow(), fatal])
  } finally {
    stdin.off('keypress', press).pause()
    stdout.off('resize', draw)
    process.off('exit', restore)
    restore()
  }
}

class Screen {
  readonly #options: TopForm
  readonly #quit: () => void
  #rows: Traffic[] = []
  #total = 0
  #view: View
  /** Whether it is to be closed was asked. */
  #asked: Traffic['id'] | undefined

  constructor(options: TopForm, quit: () => void) {
    this.#options = options
    this.#quit = quit
    this.#view = { sort: options.sort, reverse: false, selected: undefined, message: undefined }
  }

  async follow(): Promise<Ending> {
    for await (const { rows, total } of watch(this.#options)) {
      this.#rows = rows
      this.#total = total
      this.draw()
    }
    return { code: 0 }
  }

  draw(): void {
    const { columns, rows } = process.stdout
    const lines = table(this.#rows, this.#total, this.#view, { columns, rows })
    process.stdout.write(`${home}${lines.join(`${restOfLine}\n`)}${restOfLine}${restOfScreen}`)
  }

  press({ name, ctrl, sequence }: Key): void {
    if (ctrl && name === 'c') this.#quit()
    else if (this.#asked !== undefined) this.#answer(this.#asked, name === 'y')
    else this.#command(name ?? sequence ?? '')
    this.draw()
  }

  #command(key: string): void {
    this.#show({ message: undefined })
    const page = Math.max(1, (process.stdout.rows ?? 0) - 3)
    const steps: Readonly<Record<string, number>> = { up: -1, down: 1, pageup: -page, pagedown: page }
    if (key === 'q') this.#quit()
    else if (key === 'r') this.#show({ reverse: !this.#view.reverse })
    else if (key === 'left' || key === 'right') this.#sortBy(key === 'left' ? -1 : 1)
    else if (key === 'escape') this.#show({ selected: undefined })
    else if (key === 'k') this.#ask()
    else if (steps[key] !== undefined) this.#move(steps[key])
  }

  #move(step: number): void {
    const order = sorted(this.#rows, this.#view.sort, this.#view.reverse)
    const at = order.findIndex(({ id }) => id === this.#view.selected)
    const to = at < 0 ? 0 : Math.max(0, Math.min(order.length - 1, at + step))
    this.#show({ selected: order[to]?.id })
  }

  #sortBy(step: number): void {
    const order = Object.keys(sortKeys) as SortKey[]
    const to = order[(order.indexOf(this.#view.sort) + step + order.length) % order.length]
    if (to !== undefined) this.#show({ sort: to })
  }

  #ask(): void {
    const { selected } = this.#view
    const isThere = this.#rows.some(({ id }) => id === selected)
    this.#asked = isThere ? selected : undefined
    this.#show({
      message: isThere ? `close ${selected}, with a reset to both sides? y/n` : 'select one first',
    })
  }

  #answer(id: Traffic['id'], isSure: boolean): void {
    this.#asked = undefined
    this.#show({ message: isSure ? `closing ${id}` : undefined })
    if (!isSure) return
    const tell = (message: string) => {
      this.#show({ message })
      this.draw()
    }
    askOnce<{ how: string }>({ request: 'close', id }, this.#options.pid).then(
      ({ how }) => tell(`${id} ended: ${how}`),
      (error) => tell(reason(error)),
    )
  }

  #show(change: Partial<View>): void {
    this.#view = { ...this.#view, ...change }
  }
}
