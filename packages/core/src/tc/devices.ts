import { Limit, type Splicing, type Steering } from '@tproxy/bpf'
import { TproxyError } from '../errors.ts'
import type { Interface } from './interfaces.ts'
import { families } from './routing.ts'

/** An interface that is intercepted, under a slot that its connections carry in their mark. */
export interface Device {
  readonly slot: number
  /** As it is now: it may be renamed, or go and come back as another. */
  interface: Interface
}

/** What accepts a device's connections. */
export interface Listener extends Disposable {
  /** The device's interface is another by now, or may have changed. */
  adapt(): void
}

/** Opens a listener of a device, and hands it to the kernel. */
export type Listen = (device: Device, family: 4 | 6) => Listener

/**
 * The interfaces that are intercepted. One that goes away takes its link with it; when it comes back under its name, it
 * gets its slot again. One that stays is intercepted even when it is no longer where a route leads.
 */
export class Devices {
  readonly #steering: Steering
  readonly #splicing: Splicing | undefined
  readonly #listen: Listen
  readonly #first: boolean
  readonly #devices: Device[] = []
  /** By slot and family. */
  readonly #listeners = new Map<string, Listener>()

  /** `first`: before other programs on the hooks, not behind them. */
  constructor(steering: Steering, splicing: Splicing | undefined, listen: Listen, first: boolean) {
    this.#steering = steering
    this.#splicing = splicing
    this.#listen = listen
    this.#first = first
  }

  /** Brings what is intercepted up to what there is. Tells whether anything was attached, and what was refused. */
  update(present: readonly Interface[]): { attached: boolean; refused: unknown[] } {
    const refused: unknown[] = []
    let attached = false
    // IPv6 may have been switched on.
    for (const device of this.#devices) this.#openListeners(device)
    for (const found of present) {
      const same = this.#devices.find((device) => device.interface.ifindex === found.ifindex)
      if (same !== undefined) this.#adapt(same, found)
      else
        try {
          this.#attach(found)
        } catch (error) {
          refused.push(error)
        }
      // Also where only splicing was refused.
      attached ||= same === undefined && this.ifindexOf(found.name) === found.ifindex
    }
    for (const listener of this.#listeners.values()) listener.adapt()
    return { attached, refused }
  }

  /** Takes note of their names now, by index: the one of an interface that is still there may be another's. */
  rename(names: ReadonlyMap<number, string>): void {
    for (const device of this.#devices) {
      const name = names.get(device.interface.ifindex)
      if (name !== undefined) device.interface = { ...device.interface, name }
    }
  }

  /** Of an interface that is intercepted. */
  ifindexOf(name: string): number | undefined {
    return this.#devices.find((device) => device.interface.name === name)?.interface.ifindex
  }

  /** The reverse. */
  nameOf(ifindex: number): string | undefined {
    return this.#devices.find((device) => device.interface.ifindex === ifindex)?.interface.name
  }

  /** All that are, or were, intercepted. */
  get interfaces(): readonly Interface[] {
    return this.#devices.map((device) => device.interface)
  }

  close(): void {
    for (const listener of this.#listeners.values()) listener[Symbol.dispose]()
  }

  /** Its name may have changed, programs are attached to the index; or its address, which they write into what they send. */
  #adapt(device: Device, found: Interface): void {
    const isAsBefore = Buffer.compare(device.interface.mac, found.mac) === 0
    device.interface = found
    if (isAsBefore) return
    this.#steering.setDevice(device.slot, described(found))
    this.#splicing?.describe(described(found))
  }

  #openListeners(device: Device): void {
    for (const family of families()) {
      const key = `${device.slot} ${family}`
      if (!this.#listeners.has(key)) this.#listeners.set(key, this.#listen(device, family))
    }
  }

  #attach(found: Interface): void {
    const known = this.#devices.find((device) => device.interface.name === found.name)
    if (known === undefined && this.#devices.length >= Limit.devices)
      throw new TproxyError(
        'E_INTERFACE',
        `intercept ${found.name}: ${Limit.devices} others came before it`,
        {
          hint: 'restart to forget those that are gone',
        },
      )
    const device = known ?? { slot: this.#devices.length, interface: found }
    if (known !== undefined) {
      this.#steering.detachDevice(known.interface.ifindex)
      this.#splicing?.detach(known.interface.ifindex)
      known.interface = found
    }
    const { ifindex } = found
    this.#steering.setDevice(device.slot, described(found))
    if (known === undefined) {
      this.#openListeners(device)
      this.#devices.push(device)
    }
    try {
      this.#steering.attachDevice(found.name, ifindex, this.#first, this.#splicedBy(found))
    } catch (error) {
      // As if it had gone: the next update tries again.
      this.#steering.detachDevice(ifindex)
      device.interface = { ...found, ifindex: 0 }
      throw error
    }
    try {
      this.#splicing?.attach(found.name, described(found), this.#steering.egress)
    } catch (error) {
      // What leaves there is relayed.
      this.#splicing?.detach(ifindex)
      throw error
    }
  }

  /** What looks at an interface before the steering does. Where the kernel does not take it, attaching it says why. */
  #splicedBy(found: Interface): number | undefined {
    try {
      return this.#splicing?.egress(described(found))
    } catch {
      return undefined
    }
  }
}

/** As the kernel knows it. */
const described = ({ ifindex, mac, hasMac }: Interface) => ({ ifindex, mac, hasMac: hasMac ? 1 : 0 })
