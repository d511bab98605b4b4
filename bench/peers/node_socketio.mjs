// Peer: a minimal fan-out server on Socket.IO. POST /publish?channel=… emits the body to the room of that name.
import { createServer } from 'node:http'
import { Server } from 'socket.io'

const http = createServer()
const io = new Server(http, { serveClient: false })

io.on('connection', (socket) => {
  socket.on('subscribe', (channel, acknowledge) => {
    socket.join(channel)
    acknowledge('subscribed')
  })
})

// Socket.IO takes the requests of its own path away; the others come here.
http.on('request', (request, response) => {
  if (request.url.startsWith('/socket.io/')) return
  if (request.method !== 'POST') return void response.writeHead(200).end('ok')
  const channel = new URL(request.url, 'http://bench').searchParams.get('channel')
  const parts = []
  request.on('data', (part) => parts.push(part))
  request.on('end', () => {
    io.to(channel).emit('taskProgress', JSON.parse(Buffer.concat(parts)))
    response.writeHead(200, { 'content-length': 2 }).end('ok')
  })
})
http.listen({ port: Number(process.argv[2]), host: '127.0.0.1', backlog: 4096 })
