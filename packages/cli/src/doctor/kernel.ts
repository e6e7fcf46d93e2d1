import { existsSync } from 'node:fs'
import { release } from 'node:os'
import { missingCapabilities } from '../privileges.ts'
import { type Check, missing, ok } from './check.ts'

const btf = '/sys/kernel/btf/vmlinux'

export function kernelChecks(): Check[] {
  return [checkVersion(release()), checkBtf(), checkCapabilities(missingCapabilities())]
}

export function checkVersion(version: string): Check {
  const [major = 0, minor = 0] = version.split('.').map(Number)
  return major > 6 || (major === 6 && minor >= 6)
    ? ok('kernel', version)
    : missing('kernel', `${version}, without tcx`, 'boot Linux 6.6 or newer')
}

function checkBtf(): Check {
  return existsSync(btf)
    ? ok('kernel BTF', btf)
    : missing('kernel BTF', `there is no ${btf}`, 'boot a kernel with CONFIG_DEBUG_INFO_BTF=y')
}

function checkCapabilities(lacking: readonly string[]): Check {
  return lacking.length === 0
    ? ok('capabilities', 'CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON')
    : missing('capabilities', `without ${lacking.join(', ')}`, 'sudo tproxy-run doctor')
}
