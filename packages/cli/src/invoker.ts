import { execFileSync } from 'node:child_process'
import { TproxyError } from '@tproxy/core'

/** Whom the command runs as. */
export interface Invoker {
  /** Arguments of setpriv(1). */
  readonly setpriv: readonly string[]
  readonly env: NodeJS.ProcessEnv
}

/** An entry of the user database. */
export interface User {
  readonly name: string
  readonly uid: string
  readonly gid: string
  readonly home: string
  readonly shell: string
}

export type FindUser = (nameOrId: string) => User | undefined

// A command without root's uid must not have capabilities either; without these two no exec passes any on.
const noCapabilities = ['--inh-caps=-all', '--ambient-caps=-all']
const ofSudo = new Set(['SUDO_UID', 'SUDO_GID', 'SUDO_USER', 'SUDO_COMMAND'])

/**
 * The user named, or else the one who called sudo, or else whoever we are. Throws `E_OPTION` for an unknown user, and
 * `E_PRIVILEGE` when we are not root.
 */
export function invoker(
  named: string | undefined,
  { env, uid, findUser = getent }: { env: NodeJS.ProcessEnv; uid: number; findUser?: FindUser },
): Invoker {
  if (named !== undefined) {
    const user = findUser(named)
    if (user === undefined)
      throw new TproxyError('E_OPTION', `--user ${named}: there is no such user`, {
        hint: 'see getent passwd',
      })
    if (Number(user.uid) === uid) return { setpriv: noCapabilities, env }
    if (uid !== 0)
      throw new TproxyError('E_PRIVILEGE', `--user ${named}: only root may become another user`, {
        hint: 'run it with sudo',
      })
    return become(user, env)
  }
  const [sudoUid, sudoGid] = [env['SUDO_UID'] ?? '', env['SUDO_GID'] ?? '']
  if (uid !== 0 || !/^[1-9]\d*$/.test(sudoUid) || !/^\d+$/.test(sudoGid))
    return { setpriv: noCapabilities, env }
  const others = Object.fromEntries(Object.entries(env).filter(([name]) => !ofSudo.has(name)))
  const user = findUser(sudoUid)
  if (user !== undefined) return become({ ...user, gid: sudoGid }, others)
  return {
    setpriv: [`--reuid=${sudoUid}`, `--regid=${sudoGid}`, '--clear-groups', ...noCapabilities],
    env: others,
  }
}

function become({ name, uid, gid, home, shell }: User, env: NodeJS.ProcessEnv): Invoker {
  return {
    setpriv: [`--reuid=${uid}`, `--regid=${gid}`, '--init-groups', ...noCapabilities],
    env: { ...env, HOME: home, USER: name, LOGNAME: name, SHELL: shell || '/bin/sh' },
  }
}

/** Asks the system, because users may live in LDAP and the like. */
export function getent(nameOrId: string): User | undefined {
  const fields = look('passwd', nameOrId)
  if (fields === undefined) return undefined
  const [name = '', , uid = '', gid = '', , home = '/', shell = ''] = fields
  return { name, uid, gid, home, shell }
}

/** Of a group; undefined when there is none of that name. */
export function groupNumber(name: string): string | undefined {
  return look('group', name)?.[2]
}

function look(database: 'passwd' | 'group', key: string): string[] | undefined {
  try {
    const line = execFileSync('getent', [database, '--', key], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'ignore'],
    })
    return line.trimEnd().split(':')
  } catch {
    return undefined
  }
}
