/** The connections that stand, also those that were upgraded, of which Node's server knows nothing more. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import type { Duplex } from 'node:stream';

/** Requests of one connection that may wait for the one before them; clients that send ahead send a few. */
const MAX_SENT_AHEAD = 100;

/** The requests of one connection. */
interface Line {
  /** The one being answered, or answered last. */
  current: ServerResponse | null;
  /** The newest. */
  last: ServerResponse | null;
  waiting: number;
}

export class Connections {
  readonly #sockets = new Set<Socket>();
  readonly #lines = new WeakMap<Duplex, Line>();

  /** Safe to be told twice of one. */
  add(socket: Socket): void {
    if (this.#sockets.has(socket)) return;
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  }

  destroy(): void {
    for (const socket of this.#sockets) socket.destroy();
  }

  /**
   * One request of a connection after the other, each in a turn of the event loop of its own: a thousand that were sent ahead
   * come in a single read, and everybody else would wait for all of them.
   */
  inOrder({ socket }: IncomingMessage, res: ServerResponse, answer: () => void): void {
    const line = this.#lines.get(socket) ?? { current: null, last: null, waiting: 0 };
    this.#lines.set(socket, line);
    const before = line.last;
    line.last = res;
    const begin = (): void => {
      line.current = res;
      answer();
    };
    if (before === null || before.writableFinished) return begin();
    line.waiting += 1;
    if (line.waiting > MAX_SENT_AHEAD) return void socket.destroy();
    const next = (): void => {
      line.waiting -= 1;
      if (!socket.destroyed) begin();
    };
    before.once('close', () => setImmediate(next));
  }

  /** Whether what is written to it now would come into the middle of an answer. */
  isAnswering(socket: Duplex): boolean {
    const current = this.#lines.get(socket)?.current;
    return current?.headersSent === true && !current.writableFinished;
  }
}
