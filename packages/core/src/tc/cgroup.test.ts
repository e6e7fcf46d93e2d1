import { chownSync, mkdirSync, mkdtempSync, renameSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { CgroupPaths, findCgroup } from './cgroup.ts'

let root: string
beforeEach(() => {
  root = mkdtempSync(`${tmpdir()}/cgroups-`)
})
afterEach(() => {
  rmSync(root, { recursive: true })
})

const make = (...paths: string[]) => {
  for (const path of paths) mkdirSync(`${root}${path}`, { recursive: true })
}
const idOf = (path: string) => statSync(`${root}${path}`, { bigint: true }).ino

describe('the unit that a rule names', () => {
  test("is the system's, and not that of a container", () => {
    make('/machine.slice/c1/system.slice/ssh.service', '/system.slice/ssh.service')
    expect(findCgroup('ssh.service', root)).toBe('/system.slice/ssh.service')
  })

  test('is none of a user, who gives units any name', () => {
    const own = '/user.slice/user-1000.slice/user@1000.service'
    make(`${own}/app.slice/vpn.service`)
    chownSync(`${root}${own}`, 1000, 1000)
    expect(findCgroup('vpn.service', root)).toBeUndefined()
    expect(findCgroup(`${own}/app.slice/vpn.service`, root)).toBe(`${own}/app.slice/vpn.service`)
  })
})

describe('the path of a cgroup', () => {
  test('is found by its id', () => {
    make('/a/b', '/c')
    const paths = new CgroupPaths(root)
    expect(paths.find(idOf('/a/b'), 0)).toBe('/a/b')
    expect(paths.find(idOf(''), 0)).toBe('/')
  })

  test('is looked for among all of them once a second, for who asks waits', () => {
    make('/a')
    const paths = new CgroupPaths(root)
    expect(paths.find(123n, 0)).toBeUndefined()
    make('/late')
    expect(paths.find(idOf('/late'), 0)).toBeUndefined()
    expect(paths.find(idOf('/a'), 0)).toBe('/a')
  })

  test('is looked for also where its owner has made one that is too long to be said', () => {
    make('/a')
    const name = 'd'.repeat(250)
    // Each is moved below the last: a path of all of them cannot be given.
    for (let depth = 0; depth < 20; depth++) {
      make(`/${name}`)
      mkdirSync(`${root}/next`)
      renameSync(`${root}/${name}`, `${root}/next/${name}`)
      renameSync(`${root}/next`, `${root}/${name}`)
    }
    expect(new CgroupPaths(root).find(idOf('/a'), 0)).toBe('/a')
  })
})
