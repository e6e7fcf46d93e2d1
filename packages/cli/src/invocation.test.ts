import { describe, expect, it } from 'vitest'
import { parseInvocation } from './invocation.ts'

const options = (...args: string[]) => {
  const invocation = parseInvocation([...args, '--', 'true'])
  if (!('options' in invocation)) throw new Error('no options')
  return invocation.options
}

describe('the command line', () => {
  it('ends options at the first word that is none', () => {
    expect(parseInvocation(['-v', 'curl', '-v', '--json'])).toMatchObject({
      form: 'command',
      command: ['curl', '-v', '--json'],
      options: { json: false, verbosity: 'verbose' },
    })
  })

  it('ends options at --, so that any name can be a command', () => {
    expect(parseInvocation(['--', 'doctor', '--', 'x'])).toMatchObject({
      form: 'command',
      command: ['doctor', '--', 'x'],
    })
  })

  it('takes options of subcommands before and after them', () => {
    expect(parseInvocation(['--mark', '0x10000', 'doctor', '--json'])).toMatchObject({
      form: 'doctor',
      options: { json: true, routing: { mark: 0x10000 } },
    })
    expect(() => parseInvocation(['clean', 'all'])).toThrow('clean takes no arguments')
    expect(() => parseInvocation(['clean', '--plugin', 'x'])).toThrow('unknown option --plugin')
    expect(() => parseInvocation(['--keep', 'doctor'])).toThrow('--keep does not go with doctor')
  })

  it('separates a plugin from its argument at the first =', () => {
    expect(options('--plugin', 'socks=socks5://h?a=b', '--plugin=http').plugins).toEqual([
      { name: 'socks', argument: 'socks5://h?a=b' },
      { name: 'http', argument: undefined },
    ])
  })

  it('keeps the order of --rule and --rules among each other', () => {
    expect(options('--rule', 'a', '--rules', 'f', '--rule', 'b').rules).toEqual([
      { text: 'a' },
      { file: 'f' },
      { text: 'b' },
    ])
  })

  it('reads interfaces repeated, in lists, and as auto or all', () => {
    expect(options('-i', 'eth0,eth1', '--interface=eth0').interfaces).toEqual(['eth0', 'eth1'])
    expect(options('-i', 'all').interfaces).toBe('all')
    expect(() => options('-i', 'auto,eth0')).toThrow('stand alone')
  })

  it('reads times with units', () => {
    expect(
      options('--connect-timeout', '500ms', '--idle-timeout=5m', '--drain-timeout', '2').timeouts,
    ).toEqual({
      connectMs: 500,
      idleMs: 300_000,
      drainMs: 2000,
    })
    expect(options('--idle-timeout', '0').timeouts).toEqual({ idleMs: 0 })
    expect(() => options('--idle-timeout', 'soon')).toThrow(
      '--idle-timeout is "soon" (seconds, or with a unit',
    )
    expect(() => options('--idle-timeout', '99999h')).toThrow('--idle-timeout is "99999h" (at most 24 days)')
    expect(() => options('--connect-timeout', '0')).toThrow('--connect-timeout is "0" (at least 1 ms)')
    expect(() => parseInvocation(['top', '--interval', '1ms'])).toThrow(
      '--interval is "1ms" (at least 100 ms)',
    )
  })

  it('takes words and options of rules in any order', () => {
    const words = ['--json', '192.0.2.1', '--uid=7', '[2001:db8::1]:53']
    expect(() => parseInvocation(['rules', 'explain', 'udp', ...words])).toThrow('different IP versions')
    expect(
      parseInvocation(['rules', 'explain', 'udp', ...words.toSpliced(1, 1, '2001:db8::2')]),
    ).toMatchObject({
      to: 'explain',
      packet: { ip: 6, protocol: 17, source: '2001:db8::2', destination: '2001:db8::1', dport: 53, uid: 7 },
      files: undefined,
      json: true,
    })
    expect(parseInvocation(['rules', '--watch', '--pid', '7'])).toMatchObject({ watch: true, pid: 7 })
    expect(parseInvocation(['reload', '--reset'])).toMatchObject({ form: 'reload', reset: true })
    expect(parseInvocation(['--', 'reload'])).toMatchObject({ form: 'command', command: ['reload'] })
  })

  it('says which options do not go with which words', () => {
    expect(() => parseInvocation(['rules', '--uid', '5'])).toThrow('--uid does not go with rules')
    expect(() => parseInvocation(['rules', 'check', 'f', '--watch'])).toThrow(
      '--watch does not go with rules check',
    )
    expect(() => parseInvocation(['-v', 'reload'])).toThrow('--verbose does not go with reload')
    expect(() => parseInvocation(['reload', '--rest'])).toThrow('did you mean --reset?')
    expect(() => parseInvocation(['rules', 'explian'])).toThrow('rules explian: there is no such command')
    expect(() => parseInvocation(['rules', 'explain', 'tcpp', '::1', '::2'])).toThrow('did you mean tcp?')
    expect(() => parseInvocation(['rules', 'explain', 'tcp', '::1', '192.0.2.1:x'])).toThrow('is no address')
  })

  it('wants a command or an interface', () => {
    expect(parseInvocation(['-i', 'eth0'])).toMatchObject({ form: 'interface' })
    expect(() => parseInvocation(['-v'])).toThrow('nothing to do')
  })

  it('names the option that was probably meant, and never its value', () => {
    expect(() => parseInvocation(['--plugn=socks5://u:secret@h'])).toThrow(
      /^unknown option --plugn \(did you mean --plugin\?\)$/,
    )
    expect(() => parseInvocation(['--zzz'])).toThrow('see tproxy-run --help')
  })

  it('says how check takes its file', () => {
    for (const words of [
      ['check', '-c', 'f'],
      ['check', '--config=f'],
      ['-c', 'f', 'check'],
    ])
      expect(() => parseInvocation(words)).toThrow('(write check FILE)')
    expect(() => parseInvocation(['reload', '-c', 'f'])).toThrow('unknown option -c (see tproxy-run --help)')
  })

  it('says when a value is missing, or is one too many', () => {
    expect(() => parseInvocation(['--rule'])).toThrow('--rule needs a value')
    expect(() => parseInvocation(['--json=yes', 'x'])).toThrow('--json takes no value')
  })
})
