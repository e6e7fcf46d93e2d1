// What a list adds to the cost of a connection that a rule lets pass: of opening and resetting it (three packets of the
// program's), and of a byte each way on an established one (one packet).
import { originPort } from './aimed.ts'
import { measureSizes } from './sizes.ts'

await measureSizes('connections', {
  'Connections, opened and reset': () => [['connections', `${originPort}`]],
  'Exchanges on one established connection': () => [['stream', `${originPort}`]],
})
