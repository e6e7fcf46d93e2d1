import { expect, it } from 'vitest'
import { invoker } from './invoker.ts'

const alice = { name: 'alice', uid: '1000', gid: '1000', home: '/home/alice', shell: '/bin/zsh' }
const findUser = (name: string) => (name === 'alice' || name === '1000' ? alice : undefined)
const sudo = { SUDO_UID: '1000', SUDO_GID: '1000', SUDO_USER: 'alice', HOME: '/root', X: 'y' }

it('runs the command as the user who called sudo, in their home', () => {
  const { setpriv, env } = invoker(undefined, { env: sudo, uid: 0, findUser })
  expect(setpriv).toEqual([
    '--reuid=1000',
    '--regid=1000',
    '--init-groups',
    '--inh-caps=-all',
    '--ambient-caps=-all',
  ])
  expect(env).toEqual({ HOME: '/home/alice', USER: 'alice', LOGNAME: 'alice', SHELL: '/bin/zsh', X: 'y' })
})

it('stays who we are otherwise, and passes no capability on', () => {
  const none = { setpriv: ['--inh-caps=-all', '--ambient-caps=-all'] }
  expect(invoker(undefined, { env: {}, uid: 0, findUser })).toMatchObject(none)
  expect(invoker(undefined, { env: sudo, uid: 1000, findUser })).toMatchObject(none)
})

it('becomes a named user only as root, and only one there is', () => {
  expect(invoker('alice', { env: {}, uid: 0, findUser }).setpriv).toContain('--reuid=1000')
  expect(() => invoker('alice', { env: {}, uid: 7, findUser })).toThrow('only root may become another user')
  expect(() => invoker('bob', { env: {}, uid: 0, findUser })).toThrow('there is no such user')
})
