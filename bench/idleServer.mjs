/** The raw baseline of idle subscribers: bare node:http event streams and bare `ws` sockets, nothing behind them. */
import { createServer } from 'node:http';
import { WebSocketServer } from 'ws';

const server = createServer((_req, res) => {
  res.writeHead(200, { 'content-type': 'text/event-stream' });
  res.flushHeaders();
});
const sockets = new WebSocketServer({
  noServer: true,
  perMessageDeflate: false,
  handleProtocols: () => 'graphql-transport-ws',
});
server.on('upgrade', (req, socket, head) => sockets.handleUpgrade(req, socket, head, () => {}));
server.listen(0, '127.0.0.1', () => process.stdout.write(`listening on http://127.0.0.1:${server.address().port}\n`));
process.once('SIGTERM', () => process.exit(0));
