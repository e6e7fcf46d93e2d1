import { fstatSync, openSync } from 'node:fs'
import { afterEach, expect, test, vi } from 'vitest'
import { bpf, NativeError } from './ffi.ts'
import { Links } from './links.ts'

afterEach(() => void vi.restoreAllMocks())

/** Has every link look like one of tcx that somebody has detached. */
function detachAll(): void {
  const tcx = 11
  vi.spyOn(bpf, 'objectInfo').mockImplementation((_operation, _fd, info) => void info.writeUInt32LE(tcx, 0))
}

const open = () => openSync('/dev/null', 'r')
const refusal = (errno: number) => new NativeError('attach it', errno)
const [EPERM, ENODEV] = [1, 19]

test('what is refused when it is attached again costs nothing of the rest', () => {
  const links = new Links()
  let isFirst = true
  const refused = (errno: number) => () => {
    if (!isFirst) throw refusal(errno)
    return open()
  }
  links.add('first', open)
  links.add('refused', refused(EPERM))
  links.add('gone', refused(ENODEV))
  links.add('last', open)
  isFirst = false
  detachAll()
  const before = links.descriptors
  expect(links.restore()).toEqual([
    { name: 'first' },
    { name: 'refused', error: refusal(EPERM) },
    { name: 'last' },
  ])
  // What is refused may be had the next time, so its place is kept.
  expect(links.descriptors).toHaveLength(4)
  expect(links.descriptors[1]).toBe(before[1])
  links.close()
  for (const fd of before) expect(() => fstatSync(fd)).toThrow('EBADF')
})
