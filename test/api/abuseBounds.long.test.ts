/**
 * What one abusive request costs the real program: no long hold of its event loop, little CPU, and memory that comes back.
 * Each case is sent several times. Turns are measured in CPU time, and of them the least counts: what every repetition
 * costs is the request's own, what one costs more is the machine's.
 */
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { WebSocket } from 'ws';
import { type Cost, type MeasuredServer, startMeasured } from '../support/measured.js';
import { ask, exchange } from '../support/raw.js';
import { taskRequest } from '../support/rest.js';

const MIB = 1024 ** 2;
const ROUNDS = 7;
/** Of the loop, for what is refused before or soon after it is read. */
const MAX_TURN_MS = 20;
/** For bodies as large as an honest prompt may be: they are read whole, whatever they hold. */
const MAX_READ_TURN_MS = 40;
const MAX_CPU_MS = 100;
/** For 100 MB that are dropped as they come. */
const MAX_DROP_CPU_MS = 1_000;
/** What may stay behind: compiled code, the documents that are kept parsed. */
const MAX_LEFT_BYTES = 16 * MIB;
/** Above what it held before: the body as bytes, as text and as values, a few rounds of them until the next collection. */
const MAX_PEAK_BYTES = 96 * MIB;

let server: MeasuredServer;
let liveBefore: number;
const table: string[] = [];

beforeAll(async () => {
  server = await startMeasured();
  // What compiles and is kept at the first requests is not what abuse leaves.
  for (let round = 0; round < 100; round += 1) {
    await overHttp(operation(`{ __typename pools { name } } # ${round}`)).send();
    await overRest({ ctx: 'x' }).send();
  }
  liveBefore = await server.liveBytes();
});
afterAll(async () => {
  await server?.[Symbol.asyncDispose]();
  console.log(`\n${table.join('\n')}`);
});

/** Says what the answer was: a status, or `closed` with the code of a socket. */
interface Sending {
  readonly send: () => Promise<string>;
}

function posted(path: string, body: string, accept: string): Sending {
  const headers = { 'content-type': 'application/json', 'content-length': String(Buffer.byteLength(body)), accept };
  return {
    send: async () => {
      const { status, text } = await ask(server.url, { method: 'POST', path, headers, body });
      expect(text.length).toBeLessThan(50_000);
      return /"errors"|event: next\ndata: {"errors"/.test(text) || path !== '/graphql'
        ? String(status)
        : `${status} data`;
    },
  };
}

const overHttp = (body: string) => posted('/graphql', body, 'application/graphql-response+json');
const overStream = (body: string) => posted('/graphql', body, 'text/event-stream');

/** A body for REST; a part is written as it is, over the number 12345. */
function overRest(overrides: Record<string, unknown>, part?: string): Sending {
  const body = JSON.stringify(taskRequest(overrides));
  return posted('/v1/tasks', part === undefined ? body : body.replace('12345', part), 'application/json');
}

/** As the message of a socket that has said hello: refused by an error, or closed. */
function overSocket(payload: string): Sending {
  return {
    send: async () => {
      const socket = new WebSocket(`${server.url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
      socket.on('error', () => {});
      await once(socket, 'open');
      socket.send('{"type":"connection_init"}');
      await once(socket, 'message');
      const answer = new Promise<string>((resolve) => {
        socket.on('message', (data) => {
          const { type } = JSON.parse(String(data)) as { type: string };
          if (type === 'error' || type === 'next') resolve(type);
        });
        socket.on('close', (code) => resolve(`closed ${code}`));
      });
      socket.send(`{"id":"1","type":"subscribe","payload":${payload}}`);
      const said = await answer;
      socket.terminate();
      return said;
    },
  };
}

const overBytes = (bytes: string): Sending => ({
  send: async () => /^HTTP\/1\.1 (\d+)/.exec(await exchange(server.url, bytes))?.[1] ?? 'closed',
});

const least = (values: number[]) => Math.min(...values);
const median = (values: number[]) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN;

async function withinBounds(
  name: string,
  { send }: Sending,
  expected: string | RegExp,
  maxTurnMs: number,
  maxCpuMs = MAX_CPU_MS,
) {
  await server.liveBytes();
  const before = server.rssBytes();
  server.resetPeak();
  const costs: Cost[] = [];
  for (let round = 0; round < ROUNDS; round += 1) {
    costs.push(await server.measure(async () => expect(await send()).toMatch(expected)));
  }
  const turns = costs.map(({ longestTurnMs }) => longestTurnMs);
  const cpus = costs.map(({ cpuMs }) => cpuMs);
  const peak = server.peakBytes() - before;
  const left = (await server.liveBytes()) - liveBefore;
  const numbers = [least(turns), median(turns), median(cpus), peak / MIB, left / MIB].map((value) => value.toFixed(1));
  table.push(
    `${name.padEnd(48)} turn ${numbers[0]} (median ${numbers[1]}) ms, cpu ${numbers[2]} ms, peak ${numbers[3]}, left ${numbers[4]} MiB`,
  );
  expect(least(turns)).toBeLessThan(maxTurnMs);
  expect(least(cpus)).toBeLessThan(maxCpuMs);
  expect(peak).toBeLessThan(MAX_PEAK_BYTES);
  expect(left).toBeLessThan(MAX_LEFT_BYTES);
}

const operation = (query: string, variables = '{}') => `{"query":${JSON.stringify(query)},"variables":${variables}}`;
const list = (length: number) => JSON.stringify(Array.from({ length }, (_, index) => `p${index}`));
const names = (length: number) => `{${Array.from({ length }, (_, index) => `"k${index}":1`).join(',')}}`;
const lists = (levels: number) => `${'['.repeat(levels)}${']'.repeat(levels)}`;
const objects = (levels: number) => `${'{"a":'.repeat(levels)}1${'}'.repeat(levels)}`;
const times = (length: number, make: (index: number) => string) => Array.from({ length }, (_, i) => make(i)).join(' ');
const head = (line: string) => `GET /health HTTP/1.1\r\nhost: 127.0.0.1\r\n${line}\r\n\r\n`;

describe('what is too large', () => {
  it.each<[string, () => Sending, string]>([
    ['a header of 1 MB', () => overBytes(head(`x-a: ${'a'.repeat(MIB)}`)), '431'],
    ['50 000 headers', () => overBytes(head('x-a: b\r\n'.repeat(50_000))), '431'],
    ['a target of 1 MB', () => overBytes(`GET /${'a'.repeat(MIB)} HTTP/1.1\r\n\r\n`), '431'],
    ['a document of 4 MB', () => overHttp(operation('__typename '.repeat(400_000))), '413'],
    ['a document of 4 MB, as a stream', () => overStream(operation('__typename '.repeat(400_000))), '413'],
    ['variables of 10 MB', () => overHttp(operation('{a}', `{"a":"${'x'.repeat(10 * MIB)}"}`)), '413'],
    ['a body of 6 MB for REST', () => overRest({ prompt: 'x'.repeat(6 * MIB) }), '413'],
  ])('%s', async (name, sending, expected) => {
    // What is left of it is still on its way when its answer is there: nobody reads it, and some are reset.
    const answered = new RegExp(`^(${expected}|closed)$`);
    await withinBounds(name, sending(), answered, MAX_TURN_MS);
  });

  it('a message of 100 MB on a socket', async () => {
    const sending = overSocket(`"${'x'.repeat(100 * MIB)}"`);
    await withinBounds('a message of 100 MB', sending, /^closed (1009|1006)$/, MAX_TURN_MS, MAX_DROP_CPU_MS);
  }, 120_000);
});

describe('values that are too many or too deep', () => {
  const VALUES: [string, string][] = [
    ['a list of 100 000', `{"a":${list(100_000)}}`],
    ['450 000 numbers', `{"a":[${'1,'.repeat(450_000)}1]}`],
    ['70 000 names', names(70_000)],
    ['10 000 lists in each other', `{"a":${lists(10_000)}}`],
    ['10 000 objects in each other', `{"a":${objects(10_000)}}`],
    ['400 000 lists in each other', `{"a":${lists(400_000)}}`],
  ];
  it.each(VALUES)('%s, in variables', async (name, variables) => {
    const body = operation('{ __typename }', variables);
    await withinBounds(`${name}, HTTP`, overHttp(body), '400', MAX_TURN_MS);
    await withinBounds(`${name}, SSE`, overStream(body), '400', MAX_TURN_MS);
    await withinBounds(`${name}, WebSocket`, overSocket(body), 'closed 4400', MAX_TURN_MS);
  });

  it.each<[string, string]>([
    ['a list of 100 000', list(100_000)],
    ['a list of 400 000', list(400_000)],
    ['2 400 000 numbers', `[${'1,'.repeat(2_400_000)}1]`],
    ['350 000 names', names(350_000)],
    ['10 000 lists in each other', lists(10_000)],
    ['2 400 000 lists in each other', lists(2_400_000)],
    ['10 000 objects in each other', objects(10_000)],
    ['a number of 4 500 000 digits', '9'.repeat(4_500_000)],
    ['5 MB of spaces', `${' '.repeat(5_000_000)}"x"`],
    ['a word of 5 MB', 'x'.repeat(5_000_000)],
  ])('%s, for REST', async (name, part) => {
    await withinBounds(`${name}, REST`, overRest({ ctx: 12345 }, part), '400', MAX_READ_TURN_MS);
  });

  it.each<[string, string]>([
    ['plain', 'x'.repeat(4_900_000)],
    ['of escapes', '\n'.repeat(2_400_000)],
    ['of two bytes each', 'é'.repeat(2_400_000)],
  ])('a prompt of 5 MB, %s', async (name, prompt) => {
    await withinBounds(`a prompt of 5 MB, ${name}`, overRest({ ctx: 'x', prompt }), '400', MAX_READ_TURN_MS);
  });
});

const fragments = (count: number, on: string, body: (index: number) => string) =>
  times(count, (index) => `fragment f${index} on ${on} { ${body(index)} }`);

/** Each within the size of a body; the number of the round makes it another document, which no cache knows. */
const DOCUMENTS: [string, string][] = [
  ['depth 1 000', `${'{a'.repeat(1_000)}${'}'.repeat(1_000)}`],
  ['depth 2 400', `${'{a'.repeat(2_400)}${'}'.repeat(2_400)}`],
  ['a value 2 400 deep', `{ a(x: ${lists(2_400)}) }`],
  ['1 000 aliases', `{ ${times(1_000, (index) => `a${index}: __typename`)} }`],
  ['a circle of 500 fragments', `{ ...f0 } ${fragments(500, 'Query', (index) => `...f${(index + 1) % 500}`)}`],
  ['2^400 spreads', `{ ...f0 } ${fragments(400, 'Query', (index) => `...f${index + 1} ...f${index + 1}`)}`],
  ['480 fragments side by side', `{ ${times(480, (i) => `...f${i}`)} } ${fragments(480, 'Query', () => '__typename')}`],
  ['900 inline fragments', `{ ${'... { __typename } '.repeat(900)} }`],
  ['800 directives', `{ __typename ${'@skip(if: false) '.repeat(800)} }`],
  ['an introspection bomb', `{ __schema { types { ${'fields { type { '.repeat(13)} name ${'} }'.repeat(13)} } } }`],
  ['500 000 tokens', `{ ${'a '.repeat(490_000)} }`],
  ['300 000 comments', `{ __typename ${'#\n'.repeat(300_000)} }`],
  ['a field 90 000 times', `{ ${'__typename '.repeat(90_000)} }`],
  ['a field 300 times, with what is below', `{ ${'pools { name } '.repeat(300)} }`],
  ['a field 240 times, three deep', `{ ${'pools { replicas { pool { name } } } '.repeat(240)} }`],
  ['a field with 400 arguments', `{ ${times(400, (index) => `pools(a${index}: 1) { name }`)} }`],
  ['900 wrong names of 1 000 letters', `{ ${times(900, (index) => `${'p'.repeat(1_000)}${index}`)} }`],
  ['900 wrong names', `{ ${times(900, (index) => `pool${index}`)} }`],
  ['1 200 unused variables', `query (${times(1_200, (index) => `$v${index}: Int`)}) { __typename }`],
];

describe('documents', () => {
  it.each(DOCUMENTS)('%s', async (name, document) => {
    let round = 0;
    const each = (over: (body: string) => Sending): Sending => ({
      send: () => {
        round += 1;
        return over(operation(`${document} #${round}`)).send();
      },
    });
    await withinBounds(`${name}, HTTP`, each(overHttp), /^[24]00$/, MAX_TURN_MS);
    await withinBounds(`${name}, SSE`, each(overStream), /^[24]00$/, MAX_TURN_MS);
    await withinBounds(`${name}, WebSocket`, each(overSocket), 'error', MAX_TURN_MS);
  });

  it('that are never the same leave no more than those that are', async () => {
    const fill = async (pad: (round: number) => string, count: number) => {
      for (let round = 0; round < count; round += 1) await overHttp(operation(pad(round))).send();
    };
    await fill((round) => `{ __typename } # ${round} ${'x'.repeat(900_000)}`, 100);
    await fill((round) => `{ f${round} ${'a '.repeat(900)} }`, 1_000);
    await fill((round) => `{ __typename } # ${round}`, 3_000);
    expect((await server.liveBytes()) - liveBefore).toBeLessThan(MAX_LEFT_BYTES);
  });
});

it('serves as before, and failed at nothing', async () => {
  expect((await fetch(`${server.url}/ready`)).status).toBe(200);
  expect(await overHttp(operation('{ pools { name } }')).send()).toBe('200 data');
  expect(server.process.output()).not.toMatch(/request failed|operation failed|internal error/i);
});
