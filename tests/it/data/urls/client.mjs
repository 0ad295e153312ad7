// `node client.mjs socks|http PORT`: asks for each URL, one in Base64 on each line of its input. Its URLs are those of WHATWG.
import http from 'node:http'
import net from 'node:net'
import readline from 'node:readline'

const [kind, port] = process.argv.slice(2)

// What a SOCKS client says, since Node has none.
const socks = (host, to) => new Promise((resolve, reject) => {
  const stream = net.connect(Number(port), '127.0.0.1')
  stream.once('error', reject)
  stream.once('close', () => reject(new Error('closed')))
  const name = Buffer.from(host)
  stream.write(Buffer.from([5, 1, 0]))
  stream.once('data', () => {
    stream.write(Buffer.concat([Buffer.from([5, 1, 0, 3, name.length]), name, Buffer.from([to >> 8, to & 255])]))
    stream.once('data', () => resolve(stream))
  })
})

const ask = async (text) => {
  const url = new URL(text)
  if (url.protocol !== 'http:') throw new Error('scheme')
  const options = { agent: false, timeout: 3000 }
  const host = url.hostname.replace(/^\[|\]$/g, '')
  let request
  if (kind === 'socks') {
    const stream = await socks(host, Number(url.port || 80))
    const agent = new http.Agent()
    agent.createConnection = () => stream
    request = http.request(url, { ...options, agent })
  } else {
    // As proxy agents for Node do.
    request = http.request({ ...options, host: '127.0.0.1', port, path: url.href, headers: { host: url.host } })
  }
  await new Promise((resolve, reject) => {
    request.once('response', (response) => { response.resume(); response.once('end', resolve) })
    request.once('error', reject)
    request.once('timeout', () => request.destroy(new Error('timeout')))
    request.end()
  })
}

for await (const line of readline.createInterface({ input: process.stdin })) {
  try {
    await ask(Buffer.from(line, 'base64').toString())
    console.log('ok')
  } catch {
    console.log('error')
  }
}
