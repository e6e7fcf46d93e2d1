// Attaches a program that does nothing to the egress of wan0.
import './in-host.ts'
import { bpf, linkTcx } from '../../packages/bpf/src/ffi.ts'
import { selectInterfaces } from '../../packages/core/src/index.ts'
import { compiled } from './report.ts'

/** `enum bpf_attach_type` of include/uapi/linux/bpf.h. */
const tcxEgress = 47

const object = bpf.open('open', compiled('empty.bpf.c'), null)
bpf.load('load', object)
const program = bpf.programFd('find', bpf.findProgram('find', object, 'empty'))
for (const { ifindex } of selectInterfaces(['wan0']))
  linkTcx('attach', { program, ifindex, attachType: tcxEgress })
console.log('ready')
// The link lasts as long as the process.
process.stdin.resume()
