// Intercepts wan0 with a list of so many rules.
import './in-host.ts'
import { TransparentProxy } from '../../packages/core/src/index.ts'
import { aimedList } from './aimed.ts'
import { asRule } from './lists.ts'

await TransparentProxy.open({
  interfaces: ['wan0'],
  rules: aimedList(Number(process.argv[2])).map(asRule),
  defaultAction: 'direct',
})
console.log('ready')
