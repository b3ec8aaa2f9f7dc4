/**
 * A TCP proxy in front of a server that can be made to vanish and to come back: connections are cut, new ones refused. In
 * front of PostgreSQL it can also cut one statement: it reads as much of the protocol as names what a client runs.
 */
import { connect, createServer, type Server, type Socket } from 'node:net';

/**
 * What becomes of a statement whose client is cut off. `written`: it was done, and its answer did not come back. `silent`: it
 * was not sent, and nobody says so; as when a host has vanished, the connection stands and nothing comes.
 */
export type Fate = 'written' | 'not sent' | 'silent';

export interface CutStatement {
  /** Of the prepared statement. */
  readonly name: string;
  readonly fate: Fate;
}

export interface CutProxy extends AsyncDisposable {
  readonly port: number;
  cut(): Promise<void>;
  mend(): Promise<void>;
  /** Where connections lead from now on: the server came back elsewhere. */
  leadTo(target: { readonly host: string; readonly port: number }): void;
  /** The next time a client runs that statement it is cut off. Resolves when that has happened. */
  cutAt(statement: CutStatement): Promise<void>;
}

interface Armed extends CutStatement {
  readonly done: () => void;
}

export async function startCutProxy(target: { readonly host: string; readonly port: number }): Promise<CutProxy> {
  const sockets = new Set<Socket>();
  let leadsTo = target;
  let armed: Armed | null = null;
  /** The one that is armed, if it is of that name: it strikes once. */
  const take = (name: string): Armed | null => {
    if (armed?.name !== name) return null;
    const taken = armed;
    armed = null;
    return taken;
  };
  const accept = (client: Socket) => {
    const upstream = connect(leadsTo);
    for (const socket of [client, upstream]) {
      sockets.add(socket);
      socket.on('error', () => {}).once('close', () => sockets.delete(socket));
    }
    pipeStatements(client, upstream, take);
    client.once('close', () => upstream.destroy());
    upstream.once('close', () => client.destroy());
  };
  const door = doorFor(accept);
  const cut = async () => {
    const closed = door.close();
    for (const socket of sockets) socket.destroy();
    await closed;
  };
  const port = await door.open(0);
  return {
    port,
    cut,
    mend: async () => {
      await door.open(port);
    },
    leadTo: (next) => {
      leadsTo = next;
    },
    cutAt: (statement) =>
      new Promise((done) => {
        armed = { ...statement, done };
      }),
    [Symbol.asyncDispose]: cut,
  };
}

/** A listener on the loopback that can be closed and opened again. */
function doorFor(accept: (client: Socket) => void) {
  let server: Server | null = null;
  return {
    /** @param port 0: any. @returns which it is. */
    open: async (port: number): Promise<number> => {
      const made = createServer(accept);
      await new Promise<void>((resolve, reject) => made.once('error', reject).listen(port, '127.0.0.1', resolve));
      server = made;
      const address = made.address();
      if (address === null || typeof address === 'string') throw new Error('no TCP address');
      return address.port;
    },
    close: (): Promise<void> => {
      const closing = server;
      server = null;
      return new Promise((resolve) => (closing === null ? resolve() : closing.close(() => resolve())));
    },
  };
}

/** The way to a database that leads through a proxy, for `startWorld`. */
export function through(onProxy: (proxy: CutProxy) => void): (url: string) => Promise<string> {
  return async (url) => {
    const { hostname, port } = new URL(url);
    const proxy = await startCutProxy({ host: hostname, port: Number(port) });
    onProxy(proxy);
    return Object.assign(new URL(url), { host: `127.0.0.1:${proxy.port}` }).href;
  };
}

function pipeStatements(client: Socket, upstream: Socket, take: (name: string) => Armed | null): void {
  const messages = new ClientMessages();
  let struck: Armed | null = null;
  client.on('data', (bytes) => {
    const bound = messages.read(bytes);
    for (const name of struck === null ? bound : []) struck ??= take(name);
    if (struck?.fate === 'not sent') {
      client.resetAndDestroy();
      struck.done();
    } else if (struck?.fate === 'silent') {
      struck.done();
    } else if (!upstream.write(bytes)) {
      client.pause();
      upstream.once('drain', () => client.resume());
    }
  });
  upstream.on('data', (bytes) => {
    if (struck === null) {
      if (client.write(bytes)) return;
      upstream.pause();
      client.once('drain', () => upstream.resume());
      return;
    }
    // Each statement is a transaction of its own: its answer ends when it is committed.
    if (struck.fate === 'silent' || !endsReady(bytes)) return;
    client.resetAndDestroy();
    struck.done();
  });
}

/** ReadyForQuery: `Z`, length 5, the state of the transaction. */
function endsReady(bytes: Buffer): boolean {
  return bytes.length >= 6 && bytes.readUInt8(bytes.length - 6) === 0x5a && bytes.readInt32BE(bytes.length - 5) === 5;
}

const BIND = 0x42;

/** The messages of a client: one without a type at first, then type, length and content. */
class ClientMessages {
  #rest: Buffer = Buffer.alloc(0);
  #started = false;

  /** @returns the names of the prepared statements that these bytes bind. */
  read(bytes: Buffer): string[] {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    const names: string[] = [];
    for (;;) {
      const head = this.#started ? 1 : 0;
      if (this.#rest.length < head + 4) return names;
      const length = head + this.#rest.readInt32BE(head);
      if (this.#rest.length < length) return names;
      const message = this.#rest.subarray(0, length);
      this.#rest = this.#rest.subarray(length);
      if (this.#started && message[0] === BIND) names.push(statementOf(message));
      this.#started = true;
    }
  }
}

/** Bind: the name of a portal, then that of the statement, each ended by a zero. */
function statementOf(message: Buffer): string {
  const from = message.indexOf(0, 5) + 1;
  return message.toString('utf8', from, message.indexOf(0, from));
}
