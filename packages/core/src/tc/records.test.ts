import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { removeCgroupNow } from './cgroup.ts'
import { readShared, records, writeRecord, writeShared } from './records.ts'

let directory: string
beforeEach(() => {
  directory = mkdtempSync(`${tmpdir()}/tproxy-records-`)
})
afterEach(() => rmSync(directory, { recursive: true }))

const routing = { mark: 0x7470_0000, table: 0x7470, priority: 100 }
const record = { pid: 7, startTime: '1', interfaces: ['wan0'], keeps: false }

it('what is written is read, and nothing else lies there afterwards', () => {
  const changes = { routing, settings: { accept_local: '0' } }
  writeRecord(directory, 3, record)
  writeShared(directory, changes)
  expect(records(directory)).toEqual([{ number: 3, record }])
  expect(readShared(directory)).toEqual(changes)
  expect(readdirSync(directory).toSorted()).toEqual(['3.json', 'shared.json'])
})

// The directory may belong to the user of a service, and root cleans up.
describe('what somebody else wrote there', () => {
  it.each(['3.json', '3.json.part'])('is not followed where %s is a link', (name) => {
    writeFileSync(`${directory}/precious`, 'precious')
    symlinkSync(`${directory}/precious`, `${directory}/${name}`)
    writeRecord(directory, 3, record)
    expect(readFileSync(`${directory}/precious`, 'utf8')).toBe('precious')
    expect(records(directory)).toEqual([{ number: 3, record }])
  })

  it.each([
    { routing, settings: { '../../../../../../etc/hostname': '1' } },
    { routing, settings: { accept_local: '1; reboot' } },
    { routing: { ...routing, table: '7; reboot' }, settings: {} },
    { routing: { ...routing, mark: 1.5 }, settings: {} },
    { routing: { mark: 1, table: 1 }, settings: {} },
    { routing, settings: { accept_local: 1 } },
    { routing },
    { settings: {} },
    [],
    null,
    'nonsense',
  ])('is not believed: %j', (changes) => {
    writeFileSync(`${directory}/shared.json`, JSON.stringify(changes))
    expect(readShared(directory)).toBeUndefined()
  })

  it.each([
    { pid: 7, cgroup: ['/'] },
    { ...record, pid: '7' },
    { ...record, pid: 7.5 },
    { ...record, startTime: 1 },
    { ...record, interfaces: 'wan0' },
    { ...record, interfaces: ['wan0', 7] },
    { ...record, keeps: 'no' },
    { ...record, cgroup: ['/'] },
    [],
    null,
  ])('is no record, unless it is whole: %j', (written) => {
    writeFileSync(`${directory}/3.json`, JSON.stringify(written))
    expect(records(directory)).toEqual([
      { number: 3, record: { pid: 0, startTime: '', interfaces: [], keeps: false } },
    ])
  })

  it('is no cgroup to be removed', () => {
    const made = `${directory}/tproxy-7`
    mkdirSync(made)
    writeFileSync(`${directory}/precious`, 'precious')
    symlinkSync(`${directory}/precious`, `${made}/cgroup.kill`)
    removeCgroupNow(made)
    expect(readFileSync(`${directory}/precious`, 'utf8')).toBe('precious')
    expect(readdirSync(made)).toEqual(['cgroup.kill'])
  })
})
