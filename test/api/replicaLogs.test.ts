/** The logs of engines through the whole server: their end, live, across a restart, and what is refused. */
import { readdirSync, readlinkSync } from 'node:fs';
import { appendFile } from 'node:fs/promises';
import { join } from 'node:path';
import { createParser } from 'eventsource-parser';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type GraphQLAnswer, gql, sseSubscription, wsClient } from '../support/graphql.js';
import { simConfig, startWorld, type World } from '../support/world.js';

const MAX_FOLLOWERS = 32;
const LOGS = `query ($id: ID!, $lines: Int!) {
  node(id: $id) { ... on Replica { logs(lines: $lines) { number at text } } }
}`;
const FOLLOW = `subscription ($replica: ID!, $lines: Int) { replicaLogs(replica: $replica, lines: $lines) { number at text } }`;

interface Line {
  readonly number: string | null;
  readonly at: string | null;
  readonly text: string;
}

let world: World;
let replica: string;
let logFile: string;

beforeAll(async () => {
  world = await startWorld({ config: simConfig({ replicas: 1 }) });
  replica = (await gql(world.url, `{ pool(name: "sim") { replicas { id } } }`)).data.pool.replicas[0].id;
  logFile = join(world.plane.dataDir, 'logs', 'engine-sim-0.log');
});
afterAll(async () => {
  await world[Symbol.asyncDispose]();
});

async function logs(lines: number): Promise<Line[]> {
  const answer = await gql(world.url, LOGS, { id: replica, lines });
  expect(answer.errors).toBeUndefined();
  return answer.data.node.logs;
}

/** Follows over WebSocket until a text matches, and once `started` was called at the first line. */
async function followUntil(last: number, pattern: RegExp, started: () => unknown = () => {}): Promise<Line[]> {
  const client = wsClient(world.url);
  const lines: Line[] = [];
  const deadline = setTimeout(() => client.terminate(), 20_000);
  try {
    const answers = client.iterate<{ replicaLogs: Line }>({ query: FOLLOW, variables: { replica, lines: last } });
    for await (const { data } of answers) {
      if (data == null) continue;
      lines.push(data.replicaLogs);
      if (lines.length === 1) await started();
      if (pattern.test(data.replicaLogs.text)) break;
    }
    return lines;
  } finally {
    clearTimeout(deadline);
    await client.dispose();
  }
}

/** The same over SSE; the request is cut when a text matches. */
async function sseUntil(last: number, pattern: RegExp, started: () => unknown): Promise<Line[]> {
  const abort = new AbortController();
  const response = await fetch(`${world.url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream' },
    body: JSON.stringify({ query: FOLLOW, variables: { replica, lines: last } }),
    signal: AbortSignal.any([abort.signal, AbortSignal.timeout(20_000)]),
  });
  const lines: Line[] = [];
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (event === 'next') lines.push((JSON.parse(data) as { data: { replicaLogs: Line } }).data.replicaLogs);
    },
  });
  const decoder = new TextDecoder();
  let isStarted = false;
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    parser.feed(decoder.decode(chunk, { stream: true }));
    if (lines.length > 0 && !isStarted) await started();
    isStarted ||= lines.length > 0;
    if (lines.some(({ text }) => pattern.test(text))) break;
  }
  abort.abort();
  return lines;
}

/** How often this process, which is the server, has the log open. */
function openCount(): number {
  const isOurs = (fd: string) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`) === logFile;
    } catch {
      return false;
    }
  };
  return readdirSync('/proc/self/fd').filter(isOurs).length;
}

describe('the log of an engine', () => {
  it('is shown from its end, without secrets and escapes', async () => {
    const start = await logs(100);
    expect(start.some(({ text }) => text.includes('engine-sim: ready on'))).toBe(true);
    expect(start.map(({ number }) => number)).toEqual(start.map((_, index) => String(index + 1)));
    const words = 'word '.repeat(818);
    await appendFile(
      logFile,
      `\u001b[31mapi_key=abcdefgh\u001b[0m hf_abcdefghijkl\n${words}token: abcdefgh and so on\n${'y'.repeat(9000)}\n`,
    );
    const [secret, across, long, ...none] = await logs(3);
    expect(secret).toEqual({ number: '1', at: null, text: 'api_key=[redacted] [redacted]' });
    // Longer than what is masked at once, with the secret at the seam.
    expect(across?.text).toBe(`${words}token: [redacted] and so on`);
    const [, kept = '', mark] = /^(y+)(.*)$/.exec(long?.text ?? '') ?? [];
    expect([kept.length, mark]).toEqual([8192, ' [808 bytes cut]']);
    expect(none).toEqual([]);
  });

  it('is followed live over WebSocket and SSE, from lines that were there to lines that come', async () => {
    await appendFile(logFile, 'before 1\nbefore 2\n');
    const ws = await followUntil(2, /^live 2$/, () => appendFile(logFile, 'live 1\nlive 2\n'));
    expect(ws.map(({ text }) => text)).toEqual(['before 1', 'before 2', 'live 1', 'live 2']);
    expect(ws.map(({ number }) => number)).toEqual(['1', '2', '3', '4']);
    expect(ws.map(({ at }) => at === null)).toEqual([true, true, false, false]);
    const sse = await sseUntil(1, /^live 3$/, () => appendFile(logFile, 'Bearer abc\nlive 3\n'));
    expect(sse.map(({ text }) => text)).toEqual(['live 2', '[redacted]', 'live 3']);
    await expect.poll(openCount).toBe(0);
  });

  it('goes on when its engine dies and is started anew', async () => {
    const [row] = await world.database.query(`SELECT pid FROM replicas WHERE id = 'sim-0'`, []);
    await appendFile(logFile, 'the last words\n');
    const kill = () => process.kill(Number(row?.pid), 'SIGKILL');
    const lines = await followUntil(1, /engine-sim: ready on/, kill);
    expect(lines[0]?.text).toBe('the last words');
    expect(lines.length).toBeGreaterThan(2);
    expect(lines.slice(1).every(({ at }) => at !== null)).toBe(true);
    await expect.poll(openCount).toBe(0);
    const ready = async () => (await gql(world.url, `{ pool(name: "sim") { ready } }`)).data.pool.ready;
    await expect.poll(ready).toBe(true);
  });
});

describe('refused with a clear error', () => {
  const first = async (variables: Record<string, unknown>): Promise<GraphQLAnswer | undefined> => {
    const client = wsClient(world.url);
    try {
      for await (const answer of client.iterate({ query: FOLLOW, variables })) return answer as GraphQLAnswer;
      return undefined;
    } finally {
      await client.dispose();
    }
  };

  it.each([0, -1, 1001])('Replica.logs(lines: %i)', async (lines) => {
    const { data, errors } = await gql(world.url, LOGS, { id: replica, lines });
    expect(data?.node ?? null).toBeNull();
    expect(errors?.[0]).toMatchObject({ extensions: { code: 'INVALID_PARAMS', field: 'lines' } });
    expect(errors?.[0]?.message).toContain('1 to 1000');
  });

  it.each([-1, 1001])('replicaLogs(lines: %i)', async (lines) => {
    const answer = await first({ replica, lines });
    expect(answer?.errors?.[0]).toMatchObject({
      message: expect.stringContaining('0 to 1000'),
      extensions: { code: 'INVALID_PARAMS', field: 'lines' },
    });
  });

  it('a replica that does not exist, and an id of something else', async () => {
    const id = (text: string) => Buffer.from(text).toString('base64');
    const unknown = { replica: id('Replica:../../etc/passwd') };
    for (const answer of [await first(unknown), (await sseSubscription(world.url, FOLLOW, unknown))[0]]) {
      expect(answer?.errors?.[0]).toMatchObject({
        message: 'replica ../../etc/passwd not found',
        extensions: { code: 'INVALID_PARAMS', family: 'not_found', field: 'replica' },
      });
    }
    for (const wrong of [id('Pool:sim'), 'sim-0']) {
      const answer = await first({ replica: wrong });
      expect(answer?.errors?.[0], wrong).toMatchObject({ extensions: { code: 'INVALID_PARAMS' } });
      expect(answer?.errors?.[0]?.message).toContain('ID');
    }
  });

  it('more followers of one log than share a reader', async () => {
    const client = wsClient(world.url);
    try {
      const all = Array.from({ length: MAX_FOLLOWERS }, () =>
        client.iterate({ query: FOLLOW, variables: { replica, lines: 1 } }),
      );
      for (const stream of all) expect((await stream.next()).value).toMatchObject({ data: { replicaLogs: {} } });
      expect(openCount()).toBe(1);
      const answer = await first({ replica });
      expect(answer?.errors?.[0]).toMatchObject({
        message: expect.stringContaining('32 subscriptions'),
        extensions: { code: 'ADMISSION_REJECT', family: 'backpressure', retriable: true, field: 'replica' },
      });
      await all[0]?.return?.();
      await expect.poll(async () => (await first({ replica, lines: 1 }))?.errors).toBeUndefined();
    } finally {
      await client.dispose();
    }
    await expect.poll(openCount).toBe(0);
  });
});
