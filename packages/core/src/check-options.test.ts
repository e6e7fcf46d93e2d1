import { describe, expect, it, test } from 'vitest'
import { intercept, TransparentProxy } from './proxy.ts'
import { LocalTransport } from './testing.ts'

// As JavaScript, or JSON from elsewhere, may call them.
const open = (options: object) => TransparentProxy.open(options)

/** Whatever becomes of the options: nothing of this machine is intercepted. */
const refusal = (options: object) =>
  intercept({ ...options, interfaces: ['nowhere'] }).catch((error: unknown) => error)

describe('what cannot be is refused before anything is set up', () => {
  test.each<[object, string]>([
    [{ interface: ['wan0'] }, 'there is no option interface (did you mean interfaces?)'],
    [{ plugin: [] }, 'there is no option plugin (did you mean plugins?)'],
    [{ constructor: 1 }, 'there is no option constructor (there are plugins, default, names, transport, int'],
    [{ interfaces: 'wan0' }, "interfaces is 'wan0' (auto, all, or a list of names)"],
    [{ interfaces: [1] }, 'interfaces is [ 1 ] (auto, all, or a list of names)'],
    [{ carry: 'foo' }, "carry is 'foo' (splice or relay)"],
    [{ fastpath: true }, 'fastpath is true (to-proxy, both or off)'],
    [{ keepSpliced: 'no' }, "keepSpliced is 'no' (true or false)"],
    [{ rules: 'drop' }, "rules is 'drop' (a list)"],
    [{ default: 'drop' }, "default is 'drop' (a verdict: direct(), drop() or via(upstream))"],
    [{ timeouts: { connectMs: 0 } }, 'timeouts.connectMs is 0 (nothing is done in no time)'],
    [{ timeouts: 5 }, 'timeouts is 5 (a mapping)'],
    [{ routing: { tables: 7 } }, 'there is no option routing.tables (did you mean table?)'],
  ])('%j', async (options, says) => {
    const given = { transport: new LocalTransport(), ...options }
    await expect(open(given)).rejects.toMatchObject({
      code: 'E_OPTION',
      message: expect.stringContaining(says),
    })
  })

  it('also where connections are decided by you, who have no plugins', async () => {
    expect(await refusal({ plugins: [] })).toMatchObject({
      code: 'E_OPTION',
      message: expect.stringContaining('there is no option plugins (there are interfaces, cgroup, '),
    })
    expect(await refusal({ carry: 'foo' })).toMatchObject({ code: 'E_OPTION' })
  })

  test.each(['/nonexistent', '/tmp', '/etc/passwd', '.'])('%s is no cgroup', async (cgroup) => {
    expect(await refusal({ cgroup })).toMatchObject({
      code: 'E_OPTION',
      message: expect.stringContaining(
        `cgroup is '${cgroup}' (the absolute path of a directory of cgroup v2`,
      ),
    })
  })
})

test.each<[object, string]>([
  [{ plugin: [] }, 'there is no option plugin (did you mean plugins?)'],
  [{ defaultaction: 'drop' }, 'there is no option defaultaction (did you mean defaultAction?)'],
  [
    { interfaces: 'all' },
    'there is no option interfaces (there are plugins, default, rules, defaultAction, reset)',
  ],
  [{ reset: 'yes' }, "reset is 'yes' (true or false)"],
  [{ default: 'drop' }, "default is 'drop' (a verdict: direct(), drop() or via(upstream))"],
])('what cannot replace anything is refused: %j', async (decisions, message) => {
  await using proxy = await open({ transport: new LocalTransport() })
  await expect(proxy.replace(decisions)).rejects.toMatchObject({ code: 'E_OPTION', message })
})

it('what is undefined is as if it was left out', async () => {
  await using proxy = await open({ transport: new LocalTransport(), carry: undefined, default: undefined })
  expect(proxy).toBeInstanceOf(TransparentProxy)
})
