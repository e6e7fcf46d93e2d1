// A SOCKS5 server for the demonstration; it says what it is asked for.
import { createServer } from '@pondwader/socks5-server'

const server = createServer({ port: 1080, hostname: '198.51.100.1' })
server.setRulesetValidator((connection) => {
  console.log(`asked for ${connection.destAddress}:${connection.destPort}`)
  return true
})
console.log('ready')
