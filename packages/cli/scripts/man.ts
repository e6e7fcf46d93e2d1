// Writes the manual pages into the folder named.
import { mkdirSync, writeFileSync } from 'node:fs'
import manifest from '../package.json' with { type: 'json' }
import { commandPage } from '../src/manual/command-page.ts'
import { configPage } from '../src/manual/config-page.ts'

const folder = process.argv[2] ?? '.'
mkdirSync(folder, { recursive: true })
writeFileSync(`${folder}/tproxy-run.1`, commandPage(manifest.version))
writeFileSync(`${folder}/tproxy.yaml.5`, configPage(manifest.version))
