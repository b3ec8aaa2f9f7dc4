/** The raw baseline of streaming: a plain Node pipe in its own process, from the engine's answer to its caller's. */
import { Agent, createServer, request } from 'node:http';
import { pipeline } from 'node:stream';

const engine = new URL(process.argv[2] ?? '');
const agent = new Agent({ keepAlive: true });

const server = createServer((req, res) => {
  const { method, headers, url } = req;
  const { hostname, port } = engine;
  const onward = request({ agent, hostname, port, method, path: url, headers }, (answer) => {
    res.writeHead(answer.statusCode ?? 502, { 'content-type': answer.headers['content-type'] ?? '' });
    pipeline(answer, res, () => {});
  });
  onward.on('error', () => res.destroy());
  pipeline(req, onward, () => {});
});
server.on('connection', (socket) => socket.setNoDelay(true));
server.listen(0, '127.0.0.1', () => process.stdout.write(`listening on http://127.0.0.1:${server.address().port}\n`));
process.once('SIGTERM', () => process.exit(0));
