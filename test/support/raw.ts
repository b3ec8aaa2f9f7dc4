/** Requests with nothing added or mended: hosts, origins and bytes as a test wants them. What is asked is held against the contract. */
import { once } from 'node:events';
import { request } from 'node:http';
import { connect } from 'node:net';
import { WebSocket } from 'ws';
import { checkResponse } from './contract.js';

export interface RawAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

export interface RawRequest {
  readonly method?: string;
  readonly path?: string;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

const DEADLINE_MS = 15_000;

export async function ask(url: string, asked: RawRequest): Promise<RawAnswer> {
  const { status, headers, text } = await exchanged(url, asked);
  const { method = 'GET', path = '/' } = asked;
  const flat = Object.entries(headers).map(([name, value]): [string, string] => [name, String(value)]);
  await checkResponse(method, path, new Response(text === '' ? null : text, { status, headers: flat }));
  return { status, headers, text };
}

function exchanged(url: string, { method = 'GET', path = '/', headers = {}, body }: RawRequest): Promise<RawAnswer> {
  return new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url);
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const call = request({ hostname, port, method, path, headers, agent: false, signal }, (answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      answer.on('end', () => resolve({ status: answer.statusCode ?? 0, headers: answer.headers, text }));
      answer.on('error', reject);
    });
    call.on('error', reject);
    call.end(body);
  });
}

/** Writes bytes, and gives all that comes back until the server closes. */
export async function exchange(url: string, bytes: string | Buffer): Promise<string> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  let answer = '';
  socket.setEncoding('latin1').on('data', (chunk: string) => {
    answer += chunk;
  });
  // What is refused is often reset while we still write.
  socket.on('error', () => {});
  socket.setTimeout(DEADLINE_MS, () => socket.destroy(new Error('the server did not close')));
  socket.write(bytes);
  await once(socket, 'close');
  return answer;
}

export interface SocketOutcome {
  /** HTTP status of a refused upgrade, else null. */
  readonly refused: number | null;
  readonly acknowledged: Readonly<Record<string, unknown>> | null;
  readonly closed: { readonly code: number; readonly reason: string } | null;
  readonly headers: Readonly<Record<string, string | string[] | undefined>>;
  readonly text: string;
}

/** Opens a socket and says `connection_init`; settles at the acknowledgement, the refusal or the close. */
export function greet(
  url: string,
  options: { readonly headers?: Readonly<Record<string, string>>; readonly params?: Record<string, unknown> } = {},
): Promise<SocketOutcome> {
  const nothing: SocketOutcome = { refused: null, acknowledged: null, closed: null, headers: {}, text: '' };
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws', {
      headers: options.headers,
      handshakeTimeout: DEADLINE_MS,
    });
    let headers = {};
    socket.on('upgrade', (answer) => {
      headers = answer.headers;
    });
    socket.on('open', () => socket.send(JSON.stringify({ type: 'connection_init', payload: options.params })));
    socket.on('message', (data) => {
      const { payload = {} } = JSON.parse(String(data)) as { payload?: Record<string, unknown> };
      resolve({ ...nothing, headers, acknowledged: payload });
      socket.close();
    });
    socket.on('close', (code, reason) => resolve({ ...nothing, headers, closed: { code, reason: String(reason) } }));
    socket.on('unexpected-response', (call, answer) => {
      let text = '';
      answer.setEncoding('utf8').on('data', (chunk: string) => {
        text += chunk;
      });
      answer.on('end', () => {
        resolve({ ...nothing, refused: answer.statusCode ?? 0, headers: answer.headers, text });
        call.destroy();
      });
    });
    socket.on('error', reject);
  });
}
