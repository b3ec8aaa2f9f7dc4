/**
 * The simulated llama-server beside a real one, answer by answer: the same status, the same kind of body, and no field
 * that the real one does not have or has in another type. The simulator may leave out what the real one tells beyond.
 */
import { afterAll, beforeAll, describe, expect, it, type TestContext } from 'vitest';
import { adapterFor, MODEL, type RunningEngine, startRealLlamaServer, untilReady } from '../support/adapters.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const CTX = 512;
const SLOTS = 2;
const KEY = { authorization: 'Bearer key-1234567' };

let real: RunningEngine | null = null;
let sim: RunningSim | null = null;
beforeAll(async () => {
  real = await startRealLlamaServer({ slots: SLOTS, ctx: CTX, args: ['--api-key', 'key-1234567'] });
  sim = await startEngineSim({
    args: ['--model', MODEL, '--ctx', String(CTX), '--slots', String(SLOTS), '--api-key', 'key-1234567'],
  });
  if (real === null) return;
  const adapter = adapterFor('llamacpp', real);
  await untilReady(adapter).finally(() => adapter.close());
}, 30_000);
afterAll(async () => {
  await Promise.all([real?.[Symbol.asyncDispose](), sim?.[Symbol.asyncDispose]()]);
});

interface Ask {
  readonly method?: 'GET' | 'POST';
  readonly path: string;
  readonly body?: unknown;
  readonly text?: string;
  readonly headers?: Readonly<Record<string, string>>;
}

interface Answer {
  readonly status: number;
  readonly contentType: string | null;
  readonly text: string;
}

async function askEngine(baseUrl: string, { method = 'GET', path, body, text, headers = KEY }: Ask): Promise<Answer> {
  const payload = text ?? (body === undefined ? null : JSON.stringify(body));
  const answer = await fetch(`${baseUrl}${path}`, {
    method: payload === null ? method : 'POST',
    headers: { ...headers, 'content-type': 'application/json' },
    body: payload,
    signal: AbortSignal.timeout(10_000),
  });
  return { status: answer.status, contentType: answer.headers.get('content-type'), text: await answer.text() };
}

/** `path: type` of every field, array items under `[]`; a number is a number, whatever it is. */
function shapeOf(value: unknown, path = ''): Map<string, string> {
  const shape = new Map<string, string>();
  if (Array.isArray(value)) {
    shape.set(path, 'array');
    for (const item of value) for (const [key, type] of shapeOf(item, `${path}[]`)) shape.set(key, type);
  } else if (typeof value === 'object' && value !== null) {
    shape.set(path, 'object');
    for (const [key, field] of Object.entries(value)) {
      for (const [inner, type] of shapeOf(field, `${path}.${key}`)) shape.set(inner, type);
    }
  } else shape.set(path, value === null ? 'null' : typeof value);
  return shape;
}

function extraFields(simulated: unknown, genuine: unknown): string[] {
  const known = shapeOf(genuine);
  return [...shapeOf(simulated)]
    .filter(([path, type]) => known.get(path) !== type)
    .map(([path, type]) => `${path}: ${type}`);
}

const payloadsOf = (text: string): unknown[] =>
  [...text.matchAll(/^data: (.*)$/gm)].map(([, payload = '']) => JSON.parse(payload) as unknown);

/** Skips the test where there is no real engine to compare with. */
async function both({ skip }: TestContext, ask: Ask): Promise<{ simulated: Answer; genuine: Answer }> {
  if (real === null) return skip('no real engine here');
  if (sim === null) throw new Error('the simulator was not started');
  return { simulated: await askEngine(sim.baseUrl, ask), genuine: await askEngine(real.baseUrl, ask) };
}

const COMPLETION = { prompt: 'Hello', n_predict: 4, seed: 1, temperature: 0.8, id_slot: 0, cache_prompt: false };

describe('answers', () => {
  it.for<readonly [string, Ask]>([
    ['health', { path: '/health', headers: {} }],
    ['slots before anything ran', { path: '/slots' }],
    ['properties', { path: '/props' }],
    ['models', { path: '/v1/models' }],
    ['tokens', { path: '/tokenize', body: { content: 'Hello there', add_special: true } }],
    ['text of tokens', { path: '/detokenize', body: { tokens: [300] } }],
    ['a completion in one piece', { path: '/completion', body: COMPLETION }],
    ['slots after something ran', { path: '/slots' }],
  ])('%s', async ([, ask], context) => {
    const { simulated, genuine } = await both(context, ask);
    expect([simulated.status, simulated.contentType]).toEqual([genuine.status, genuine.contentType]);
    expect(extraFields(JSON.parse(simulated.text), JSON.parse(genuine.text))).toEqual([]);
  });

  it('a stream: frame by frame', async (context) => {
    const ask = { path: '/completion', body: { ...COMPLETION, stream: true } };
    const { simulated, genuine } = await both(context, ask);
    expect([simulated.status, simulated.contentType]).toEqual([genuine.status, genuine.contentType]);
    const [ours, theirs] = [payloadsOf(simulated.text), payloadsOf(genuine.text)];
    expect(ours).toHaveLength(5);
    expect(theirs.length).toBeGreaterThan(1);
    expect(Object.keys(ours[0] as object)).toEqual(Object.keys(theirs[0] as object));
    expect(extraFields(ours[0], theirs[0])).toEqual([]);
    expect(extraFields(ours.at(-1), theirs.at(-1))).toEqual([]);
    // Both end with the frame that says so and nothing after it.
    for (const text of [simulated.text, genuine.text]) expect(text).toMatch(/"stop":true[^\n]*\n\n$/);
  });

  it('metrics: names and types', async (context) => {
    const answers = await both(context, { path: '/metrics' });
    const rows = ({ text }: Answer) => [...text.matchAll(/^# TYPE (\S+ \S+)$/gm)].map(([, row]) => row);
    const genuine = new Set(rows(answers.genuine));
    expect(answers.simulated.contentType).toBe(answers.genuine.contentType);
    expect(rows(answers.simulated).length).toBeGreaterThan(8);
    expect(rows(answers.simulated).filter((row) => !genuine.has(row))).toEqual([]);
  });
});

describe('refusals', () => {
  it.for<readonly [string, Ask]>([
    ['an unknown route', { path: '/nowhere' }],
    ['no key', { path: '/props', headers: {} }],
    ['a wrong key', { path: '/slots', headers: { authorization: 'Bearer nope' } }],
    ['no prompt', { path: '/completion', body: { n_predict: 1 } }],
    ['embeddings that are off', { path: '/v1/embeddings', body: { input: 'x' } }],
    ['reranking that is off', { path: '/v1/rerank', body: { query: 'x', documents: ['y'] } }],
  ])('%s: the same status and body', async ([, ask], context) => {
    const { simulated, genuine } = await both(context, ask);
    expect([simulated.status, simulated.contentType]).toEqual([genuine.status, genuine.contentType]);
    expect(JSON.parse(simulated.text)).toEqual(JSON.parse(genuine.text));
  });

  it.for<readonly [string, Ask]>([
    ['no JSON', { path: '/completion', text: '{"prompt": ' }],
    ['a prompt that does not fit', { path: '/completion', body: { prompt: 'k'.repeat(3_000), n_predict: 1 } }],
  ])('%s: the same status and kind, in words of its own', async ([, ask], context) => {
    const { simulated, genuine } = await both(context, ask);
    const kind = ({ text }: Answer) => {
      const { error } = JSON.parse(text) as { error: { code: number; type: string } };
      return [error.code, error.type, ...shapeOf(error).keys()].sort();
    };
    expect(simulated.status).toBe(genuine.status);
    expect(kind(simulated)).toEqual(kind(genuine));
  });
});
