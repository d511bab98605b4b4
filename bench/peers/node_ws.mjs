// Peer: a minimal fan-out server on Node's `ws`. POST /publish?channel=… sends the body to every subscriber.
import { createServer } from 'node:http'
import { WebSocketServer } from 'ws'

const channels = new Map()

const http = createServer((request, response) => {
  if (request.method !== 'POST') return void response.writeHead(200).end('ok')
  const channel = new URL(request.url, 'http://bench').searchParams.get('channel')
  const parts = []
  request.on('data', (part) => parts.push(part))
  request.on('end', () => {
    // One buffer for all: a string would be turned into bytes again for every client.
    const message = Buffer.concat(parts)
    for (const client of channels.get(channel) ?? []) client.send(message, { binary: false })
    response.writeHead(200, { 'content-length': 2 }).end('ok')
  })
})

const server = new WebSocketServer({ server: http, perMessageDeflate: false, clientTracking: false })
server.on('connection', (client) => {
  let members
  client.on('message', (data) => {
    const { type, channel } = JSON.parse(data)
    if (type !== 'subscribe') return
    members = channels.get(channel) ?? channels.set(channel, new Set()).get(channel)
    members.add(client)
    client.send(JSON.stringify({ type: 'subscribed', channel }))
  })
  client.on('error', () => {})
  client.on('close', () => members?.delete(client))
})
http.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 })
