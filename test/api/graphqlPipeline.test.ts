/** The GraphQL door without a database: limits, masking and disposal, over HTTP, SSE and WebSocket. */
import { once } from 'node:events';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { createClient } from 'graphql-ws';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { RefusalError } from '../../src/core/errors.js';
import type { StreamEvent } from '../../src/core/frame.js';
import type { GraphQLContext } from '../../src/schema/context.js';
import { buildSchema } from '../../src/schema/schema.js';
import { createGraphQLDoor, type GraphQLDoor } from '../../src/server/graphql.js';

const MAX_SOCKETS = 5;
const TASK = '00000000-0000-4000-8000-000000000001';

/** A reader that gives the events it was made with and then waits until it is closed. */
class FakeReader {
  closed = false;
  reads = 0;
  readonly #events: StreamEvent[];
  #wake: (() => void) | null = null;
  readonly closing: Promise<void>;
  #onClose: () => void = () => {};

  constructor(events: StreamEvent[]) {
    this.#events = events;
    this.closing = new Promise((resolve) => {
      this.#onClose = resolve;
    });
  }

  async next(): Promise<readonly StreamEvent[] | null> {
    this.reads += 1;
    const events = this.#events.splice(0, 1);
    if (events.length > 0) return events;
    await new Promise<void>((resolve) => {
      this.#wake = resolve;
      if (this.closed) resolve();
    });
    return null;
  }

  close(): void {
    this.closed = true;
    this.#wake?.();
    this.#onClose();
  }
}

function tokens(count: number): StreamEvent[] {
  return Array.from({ length: count }, (_, index) => ({
    kind: 'tokens',
    seq: index + 1,
    atMs: 0,
    firstIndex: index,
    tokens: [`t${index}`],
  }));
}

interface Door {
  readonly url: string;
  readonly door: GraphQLDoor;
  readonly server: Server;
  readonly masked: unknown[];
}

let reader: FakeReader;
let capabilities: () => unknown;
let open: Door;

/** Only what the operations of this file touch. */
function fakeContext(): GraphQLContext {
  const services = {
    streams: {
      open: async (id: string) => {
        if (id === TASK) return reader;
        throw new RefusalError({
          family: 'not_found',
          code: 'INVALID_PARAMS',
          message: 'no such task',
          field: 'task_id',
          retriable: false,
        });
      },
    },
    pools: { capabilities: () => capabilities() },
  };
  return {
    services: services as never,
    prisma: { session: { findUnique: () => new Promise(() => {}) } } as never,
    correlationId: 'c-1',
    identity: 'localhost',
    nowMs: () => 0,
  };
}

beforeEach(async () => {
  reader = new FakeReader(tokens(2));
  capabilities = () => [];
  const masked: unknown[] = [];
  const door = createGraphQLDoor({
    schema: buildSchema(),
    makeContext: fakeContext,
    onInternalError: (error) => masked.push(error),
    authorize: (params) =>
      params.token === 'bad' ? { ok: false, reason: 'BAD_TOKEN' } : { ok: true, acknowledge: {} },
    limits: {
      maxBodyBytes: 20_000,
      maxPayloadBytes: 20_000,
      maxOperations: 3,
      maxSocketsPerPeer: MAX_SOCKETS,
      initWaitMs: 100,
      operationTimeoutMs: 200,
    },
  });
  const server = createServer((req, res) => void door.handle(req, res));
  server.on('upgrade', (req, socket, head) => door.handleUpgrade(req, socket, head));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  open = { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/graphql`, door, server, masked };
});

afterEach(async () => {
  await open.door.dispose();
  open.server.closeAllConnections();
  open.server.close();
});

interface Answer {
  readonly data?: Record<string, unknown> | null;
  readonly errors?: { readonly message: string; readonly extensions: Record<string, unknown> }[];
}

async function post(query: string, variables: Record<string, unknown> = {}, headers: Record<string, string> = {}) {
  const response = await fetch(open.url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json', ...headers },
    body: JSON.stringify({ query, variables }),
  });
  const text = await response.text();
  return { status: response.status, answer: (text === '' ? {} : JSON.parse(text)) as Answer };
}

function client(connectionParams: Record<string, unknown> = {}) {
  return createClient({
    url: open.url.replace('http', 'ws'),
    webSocketImpl: WebSocket,
    connectionParams,
    retryAttempts: 0,
  });
}

/** First result of an operation, or the errors it was refused with. */
function overSocket(query: string, variables: Record<string, unknown> = {}): Promise<Answer> {
  const socket = client();
  return new Promise<Answer>((resolve) => {
    let first: Answer = {};
    socket.subscribe(
      { query, variables },
      {
        next: (result) => {
          first = result as Answer;
        },
        error: (errors) => resolve({ errors: errors as never }),
        complete: () => resolve(first),
      },
    );
  }).finally(() => socket.dispose());
}

async function rawSocket(): Promise<{ socket: WebSocket; closed: Promise<number> }> {
  const socket = new WebSocket(open.url.replace('http', 'ws'), 'graphql-transport-ws');
  const closed = once(socket, 'close').then(([code]) => code as number);
  closed.catch(() => {});
  await once(socket, 'open');
  return { socket, closed };
}

const EVENTS = `subscription($id: UUID!) { taskEvents(taskId: $id) { __typename seq ... on TaskTokens { firstIndex tokens } } }`;
const nested = (depth: number) => `{ pools { ${'replicas { pool { '.repeat(depth)} name ${'} }'.repeat(depth)} } }`;
const ABUSES: Record<string, string> = {
  depth: nested(6),
  aliases: `{ ${Array.from({ length: 31 }, (_, i) => `a${i}: __typename`).join(' ')} }`,
  directives: `{ __typename ${'@skip(if: false) '.repeat(51)} }`,
  tokens: `{ ${'a '.repeat(6000)} }`,
  fields: `{ ${'__typename '.repeat(1001)} }`,
  fragments: `{ ...f0 } ${Array.from({ length: 12 }, (_, i) => `fragment f${i} on Query { ...f${i + 1} ...f${i + 1} }`).join(' ')} fragment f12 on Query { __typename }`,
  complexity: `{ tasks(first: 100) { edges { node { pool { tasks(first: 100) { edges { node { text } } } } } } } }`,
  page: `{ tasks(first: 101) { edges { cursor } } }`,
  cycle: '{ ...a } fragment a on Query { ...b } fragment b on Query { ...a }',
  'thousand aliases': `{ ${Array.from({ length: 1000 }, (_, i) => `a${i}: __typename`).join(' ')} }`,
  'a directive many times': `{ __typename ${'@include(if: true) '.repeat(500)} }`,
  introspection: `{ __schema { types { ${'fields { type { '.repeat(13)} name ${'} }'.repeat(13)} } } }`,
  'deep nesting': `${'{a'.repeat(1600)}${'}'.repeat(1600)}`,
  'nesting beyond the stack': `${'{a'.repeat(2400)}${'}'.repeat(2400)}`,
  'values in values': `{ pools(first: ${'['.repeat(2400)}${']'.repeat(2400)}) { name } }`,
  comments: `{ __typename ${'#\n'.repeat(1001)} }`,
  'one field many times': `{ ${'capabilities { engines { engine } } '.repeat(31)} }`,
  'one field in many fragments': `{ ${Array.from({ length: 31 }, (_, i) => `...f${i}`).join(' ')} } ${Array.from({ length: 31 }, (_, i) => `fragment f${i} on Query { capabilities { engines { engine } } }`).join(' ')}`,
  'inline fragments': `{ ${'... { __typename } '.repeat(151)} }`,
  'a circle wider at each turn': '{ ...a } fragment a on Query { x { ...a } y { ...a } z { ...a } }',
  'an unused fragment': `{ __typename } fragment f on Query { ${'capabilities { engines { engine } } '.repeat(300)} }`,
  'a long name': `{ ${'a'.repeat(129)} }`,
  operations: 'query A { __typename } query B { __typename }',
  'another kind': 'mutation { __typename } subscription { __typename }',
  unknown: '{ nothing }',
  syntax: '{',
};

describe('limits', () => {
  it.each(Object.entries(ABUSES))(
    'refuses %s the same way over HTTP, event streams and WebSocket, before any resolver',
    async (_name, query) => {
      capabilities = () => expect.unreachable('a resolver ran');
      const http = await post(query);
      const stream = await post(query, {}, { accept: 'text/event-stream, application/graphql-response+json;q=0.9' });
      const socket = await overSocket(query);
      for (const answer of [http.answer, stream.answer, socket]) {
        expect(answer.errors?.length).toBeGreaterThan(0);
        for (const error of answer.errors ?? []) expect(error.extensions).toMatchObject({ code: 'INVALID_PARAMS' });
        for (const error of answer.errors ?? []) expect(error.extensions).not.toHaveProperty('http');
      }
      expect(open.masked).toEqual([]);
    },
  );

  it.each([
    ['a name twice', '"variables":{"a":1,"a":2}'],
    ['lists in lists', `"variables":{"a":${'['.repeat(300)}${']'.repeat(300)}}`],
  ])('refuses a body with %s the same way', async (_name, members) => {
    capabilities = () => expect.unreachable('a resolver ran');
    const operation = `{"query":"{ capabilities { engines { engine } } }",${members}}`;
    for (const accept of ['application/json', 'text/event-stream']) {
      const headers = { 'content-type': 'application/json', accept };
      const answer = await fetch(open.url, { method: 'POST', headers, body: operation });
      expect(answer.status).toBe(400);
      expect(await answer.text()).toContain('INVALID_PARAMS');
    }
    const { socket, closed } = await rawSocket();
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    socket.send(`{"id":"1","type":"subscribe","payload":${operation}}`);
    expect(await closed).toBe(4400);
  });

  it('takes a prototype in variables for a name like any other, on all three', async () => {
    const variables = JSON.parse(
      '{"__proto__":{"polluted":true},"constructor":{"prototype":{"polluted":true}}}',
    ) as Record<string, unknown>;
    const query = '{ capabilities { engines { engine } } }';
    const answers = [
      await post(query, variables),
      await post(query, variables, { accept: 'text/event-stream, application/json;q=0.9' }),
      { answer: await overSocket(query, variables) },
    ];
    for (const { answer } of answers) expect(answer.errors).toBeUndefined();
    expect(({} as { polluted?: boolean }).polluted).toBeUndefined();
  });

  it('refuses a batch on all three', async () => {
    const batch = '[{"query":"{__typename}"},{"query":"{__typename}"}]';
    for (const accept of ['application/json', 'text/event-stream']) {
      const headers = { 'content-type': 'application/json', accept };
      expect((await fetch(open.url, { method: 'POST', headers, body: batch })).status).toBe(400);
    }
    const { socket, closed } = await rawSocket();
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    socket.send(`{"id":"1","type":"subscribe","payload":${batch}}`);
    expect(await closed).toBe(4400);
  });

  it('takes JSON alone, with no CORS, no batch, and a bounded body', async () => {
    const form = await fetch(open.url, {
      method: 'POST',
      body: new URLSearchParams({ query: '{__typename}' }),
      headers: { origin: 'http://evil' },
    });
    expect(form.status).toBe(415);
    expect(form.headers.get('access-control-allow-origin')).toBeNull();
    const batch = await fetch(open.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: '[{"query":"{__typename}"}]',
    });
    expect(batch.status).toBe(400);
    const large = await post(`{ __typename } # ${'x'.repeat(30_000)}`);
    expect(large).toMatchObject({ status: 413, answer: { errors: [{ extensions: { code: 'INVALID_PARAMS' } }] } });
    const chunked = await fetch(open.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: new Blob([`{"query":"{ __typename } # ${'x'.repeat(30_000)}"}`]).stream(),
      duplex: 'half',
    } as RequestInit);
    expect(chunked.status).toBe(413);
  });

  it('lets tools read the schema, and says which variable was wrong', async () => {
    const { getIntrospectionQuery } = await import('graphql');
    expect((await post(getIntrospectionQuery())).status).toBe(200);
    const wrong = await post(
      EVENTS,
      { id: 'not-a-uuid' },
      { accept: 'application/graphql-response+json, text/event-stream;q=0.1' },
    );
    expect(wrong).toMatchObject({ status: 400, answer: { errors: [{ extensions: { code: 'INVALID_PARAMS' } }] } });
  });

  it('closes sockets that break the protocol or ask for too much', async () => {
    const silent = await rawSocket();
    expect(await silent.closed).toBe(4408);
    const early = await rawSocket();
    early.socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: '{__typename}' } }));
    expect(await early.closed).toBe(4401);
    const huge = await rawSocket();
    huge.socket.send('x'.repeat(30_000));
    expect(await huge.closed).toBe(1009);
    const greedy = await rawSocket();
    greedy.socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(greedy.socket, 'message');
    for (let id = 0; id < 4; id += 1) {
      greedy.socket.send(
        JSON.stringify({ id: String(id), type: 'subscribe', payload: { query: EVENTS, variables: { id: TASK } } }),
      );
    }
    expect(await greedy.closed).toBe(1013);
    const hasty = await rawSocket();
    hasty.socket.send(JSON.stringify({ type: 'connection_init' }));
    hasty.socket.send(JSON.stringify({ type: 'connection_init' }));
    expect(await hasty.closed).toBe(4429);
    const torn = await rawSocket();
    torn.socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(torn.socket, 'message');
    for (let part = 0; part < 2_000; part += 1) torn.socket.send('x', { fin: false });
    expect(await torn.closed).toBeOneOf([1006, 1008]);
    const garbled = await rawSocket();
    garbled.socket.send('{"type":"unheard of"}');
    expect(await garbled.closed).toBe(4400);
    const refused = await rawSocket();
    refused.socket.send(JSON.stringify({ type: 'connection_init', payload: { token: 'bad' } }));
    expect(await refused.closed).toBe(4403);
  });
});

describe('many sockets', () => {
  it('are as many as one address may have, and one more when one has gone', async () => {
    const sockets = await Promise.all(Array.from({ length: MAX_SOCKETS }, rawSocket));
    await expect(rawSocket()).rejects.toThrow('503');
    sockets[0]?.socket.close();
    await sockets[0]?.closed;
    await expect.poll(() => open.door.connections).toBe(MAX_SOCKETS - 1);
    await rawSocket();
    expect(open.door.connections).toBe(MAX_SOCKETS);
  });

  it.each(['frames', 'messages'])('are cut when they ask to be answered and do not read: %s', async (kind) => {
    const { socket, closed } = await rawSocket();
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    socket.pause();
    const payload = 'x'.repeat(100);
    let gone = false;
    void closed.then(() => {
      gone = true;
    });
    const large = JSON.stringify({ type: 'ping', payload: { text: 'x'.repeat(10_000) } });
    while (!gone) {
      for (let count = 0; count < 200; count += 1) {
        if (kind === 'frames') socket.ping(payload);
        else socket.send(large);
      }
      if (open.door.connections === 0) break;
      await new Promise((resolve) => setImmediate(resolve));
    }
    expect(open.door.connections).toBe(0);
    socket.terminate();
  });
});

describe('errors', () => {
  it('masks what is not the business of the caller, with its correlation id', async () => {
    capabilities = () => {
      throw new Error('secret: postgres://user:password@host');
    };
    const query = '{ capabilities { engines { engine } } }';
    for (const answer of [(await post(query)).answer, await overSocket(query)]) {
      expect(JSON.stringify(answer)).not.toContain('secret');
      expect(answer.errors?.[0]?.extensions).toEqual({ code: 'INTERNAL', correlationId: 'c-1' });
    }
    expect(open.masked).toHaveLength(2);
  });

  it('ends an operation that takes too long', async () => {
    const { answer } = await post(`{ session(sessionId: "${TASK}") { turns } }`);
    expect(answer.errors?.[0]?.extensions).toMatchObject({ code: 'DEADLINE_UNMET' });
  });

  it('refuses a subscription to an unknown task before it starts', async () => {
    const id = '00000000-0000-4000-8000-000000000002';
    const answer = await overSocket(EVENTS, { id });
    expect(answer.errors?.[0]?.extensions).toMatchObject({
      code: 'INVALID_PARAMS',
      family: 'not_found',
      field: 'task_id',
    });
    const sse = await post(EVENTS, { id }, { accept: 'text/event-stream;q=0.9, application/json' });
    expect(sse.answer.errors?.[0]?.extensions).toMatchObject({ family: 'not_found', correlationId: 'c-1' });
  });
});

describe('subscriptions', () => {
  it('releases a parked read when the client of a socket completes, and when it is gone', async () => {
    for (const leave of ['complete', 'terminate'] as const) {
      reader = new FakeReader(tokens(2));
      const current = reader;
      const { socket, closed } = await rawSocket();
      socket.send(JSON.stringify({ type: 'connection_init' }));
      await once(socket, 'message');
      const seen: string[] = [];
      const twoSeen = new Promise<void>((resolve) => {
        socket.on('message', (data) => {
          const message = JSON.parse(String(data)) as { type: string; payload: Answer };
          if (message.type === 'next') seen.push(JSON.stringify(message.payload.data));
          if (seen.length === 2) resolve();
        });
      });
      socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: EVENTS, variables: { id: TASK } } }));
      await twoSeen;
      expect(seen[1]).toBe('{"taskEvents":{"__typename":"TaskTokens","seq":2,"firstIndex":1,"tokens":["t1"]}}');
      if (leave === 'complete') socket.send(JSON.stringify({ id: '1', type: 'complete' }));
      else socket.terminate();
      await current.closing;
      socket.terminate();
      await closed;
    }
  });

  it('releases a parked read when the reader of an event stream is gone', async () => {
    const abort = new AbortController();
    const response = await fetch(open.url, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
      body: JSON.stringify({ query: EVENTS, variables: { id: TASK } }),
      signal: abort.signal,
    });
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    let text = '';
    for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
      text += Buffer.from(chunk).toString();
      if (text.includes('"t1"')) break;
    }
    abort.abort();
    await reader.closing;
  });

  it('tells sockets to come back and cuts event streams on disposal', async () => {
    const { socket, closed } = await rawSocket();
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: EVENTS, variables: { id: TASK } } }));
    await once(socket, 'message');
    await open.door.dispose();
    expect(await closed).toBe(1001);
    await reader.closing;
  });

  it('stops a long replay soon after its client is gone', async () => {
    reader = new FakeReader(tokens(20_000));
    const { socket } = await rawSocket();
    socket.send(JSON.stringify({ type: 'connection_init' }));
    await once(socket, 'message');
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query: EVENTS, variables: { id: TASK } } }));
    await once(socket, 'message');
    socket.terminate();
    await reader.closing;
    expect(reader.reads).toBeLessThan(10_000);
  });
});
