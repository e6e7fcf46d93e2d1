#!/usr/bin/env node
import { keepCompiled } from './compiled.ts'

// An older Node, which env may find, would end with a syntax error of what main.ts imports, and understands these files.
const { node } = process.versions
if (Number.parseInt(node, 10) < 24) {
  console.error(`tproxy-run: needs Node 24 or newer, this is ${node} (put a newer one first in PATH)`)
  process.exit(125)
}
keepCompiled()
await import('./main.ts')
