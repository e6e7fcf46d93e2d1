// Imported first by what attaches something: started by hand, it would attach to the machine itself.
import { readlinkSync } from 'node:fs'

const machine = process.env['RIG_MACHINE']
if (machine === undefined || readlinkSync('/proc/self/ns/net') === machine)
  throw new Error('this program runs in a host of the rig only')
