/** A TCP proxy in front of a server that can be made to vanish and to come back: connections are cut, new ones refused. */
import { connect, createServer, type Server, type Socket } from 'node:net';

export interface CutProxy extends AsyncDisposable {
  readonly port: number;
  cut(): Promise<void>;
  mend(): Promise<void>;
}

export async function startCutProxy(target: { readonly host: string; readonly port: number }): Promise<CutProxy> {
  const sockets = new Set<Socket>();
  const track = (socket: Socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).once('close', () => sockets.delete(socket));
  };
  const accept = (client: Socket) => {
    const upstream = connect(target);
    track(client);
    track(upstream);
    client.pipe(upstream).pipe(client);
    client.once('close', () => upstream.destroy());
    upstream.once('close', () => client.destroy());
  };
  let server: Server | null = null;
  const listen = async (port: number): Promise<number> => {
    const made = createServer(accept);
    await new Promise<void>((resolve, reject) => made.once('error', reject).listen(port, '127.0.0.1', resolve));
    server = made;
    const address = made.address();
    if (address === null || typeof address === 'string') throw new Error('no TCP address');
    return address.port;
  };
  const cut = async () => {
    const closed = new Promise<void>((resolve) => (server === null ? resolve() : server.close(() => resolve())));
    server = null;
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const port = await listen(0);
  return {
    port,
    cut,
    mend: async () => {
      await listen(port);
    },
    [Symbol.asyncDispose]: cut,
  };
}
