import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { type IncomingMessage, request } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parseSimArgs } from '../../src/engines/sim/cli.js';
import { type Completion, SimEngine } from '../../src/engines/sim/engine.js';
import { FAULTS, FaultSet } from '../../src/engines/sim/faults.js';
import { createSimServer } from '../../src/engines/sim/http.js';
import { detokenize, embed, Generator, rerankScore, tokenize } from '../../src/engines/sim/model.js';
import { SlotPool } from '../../src/engines/sim/slots.js';
import { type StreamFrames, streamCompletion } from '../../src/engines/sim/stream.js';
import { NO_STOP, TokenReader } from '../../src/engines/sim/tokens.js';
import { groupMembers } from '../../src/host/procfs.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const SAMPLING = { temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 };
const never = new AbortController().signal;

function textOf(prompt: string, seed: number, sampling = SAMPLING): string {
  const generator = new Generator('m', prompt, seed, sampling);
  return detokenize(Array.from({ length: 50 }, () => generator.next()));
}

describe('model', () => {
  it('turns every text into tokens and back', () => {
    fc.assert(
      fc.property(fc.string({ unit: 'binary' }), (text) => {
        expect(detokenize(tokenize(text))).toBe(text);
      }),
    );
    expect(tokenize(' the river')).toHaveLength(2);
  });

  it('depends on prompt, seed and sampling, and on the seed only when it samples', () => {
    expect(textOf('p', 1)).toBe(textOf('p', 1));
    expect(
      new Set([textOf('p', 1), textOf('p', 2), textOf('q', 1), textOf('p', 1, { ...SAMPLING, topK: 1 })]).size,
    ).toBe(4);
    const greedy = { ...SAMPLING, temperature: 0 };
    expect(textOf('p', 1, greedy)).toBe(textOf('p', 2, greedy));
  });

  it('does not fall into a loop', () => {
    const generator = new Generator('m', 'p', 1, SAMPLING);
    const ids = Array.from({ length: 5_000 }, () => generator.next());
    expect(new Set(ids).size).toBeGreaterThan(150);
    expect(ids.slice(0, 2_000)).not.toEqual(ids.slice(2_000, 4_000));
  });
});

describe('split characters', () => {
  it('hold the text back until the character is whole, and lose nothing', () => {
    const generator = new Generator('m', 'p', 1, SAMPLING, true);
    const reader = new TokenReader(true);
    const ids = Array.from({ length: 200 }, () => generator.next());
    const texts = ids.map((id) => reader.read(id).text);
    expect(texts.filter((text) => text === '').length).toBeGreaterThan(5);
    expect(texts.join('')).toBe(detokenize(ids));
    expect(texts.join('')).not.toContain('\uFFFD');
  });
});

describe('vectors', () => {
  it('are of length 1 and belong to model and text; reranking prefers shared words', () => {
    expect(Math.hypot(...embed('m', 'a'))).toBeCloseTo(1);
    expect(embed('m', 'a')).toEqual(embed('m', 'a'));
    expect(embed('m', 'a')).not.toEqual(embed('n', 'a'));
    const [near, far] = [' the river', ' silent morning'].map((text) => rerankScore('m', ' river', text));
    expect(near).toBeGreaterThan(far ?? 1);
  });
});

describe('slots', () => {
  it('give a freed slot to the longest deferred that may have it', async () => {
    const pool = new SlotPool(2);
    const [zero, one] = [await pool.acquire(-1, never), await pool.acquire(-1, never)];
    const order: string[] = [];
    const wait = (name: string, idSlot: number): Promise<void> =>
      pool.acquire(idSlot, never).then((slot) => void order.push(`${name}:${slot.id}`));
    const waits = [wait('a', 1), wait('b', -1), wait('c', 2)]; // 2 wraps to slot 0
    expect(pool.deferredCount).toBe(3);
    pool.release(zero);
    await waits[1];
    pool.release(zero);
    await waits[2];
    pool.release(one);
    await waits[0];
    expect(order).toEqual(['b:0', 'c:0', 'a:1']);
  });

  it('forget a deferred client that goes', async () => {
    const pool = new SlotPool(1);
    const slot = await pool.acquire(0, never);
    const client = new AbortController();
    const deferred = pool.acquire(0, client.signal);
    client.abort(new Error('gone'));
    await expect(deferred).rejects.toThrow('gone');
    pool.release(slot);
    expect([pool.busyCount, pool.deferredCount]).toEqual([0, 0]);
  });
});

describe('arguments', () => {
  it('name what is wrong', () => {
    expect(() => parseSimArgs(['--protocol', 'sglang'])).toThrow("there is no protocol 'sglang'");
    expect(() => parseSimArgs(['--slots', '0'])).toThrow("--slots must be a whole number from 1 to 65536, not '0'");
    expect(() => new FaultSet().set(['sulk'])).toThrow("unknown fault 'sulk'");
    expect(() => new FaultSet().set(['hang-at-token'])).toThrow('hang-at-token:N');
    expect(() => new FaultSet().set(['slow-load:-1'])).toThrow('slow-load:MS');
  });

  it('are shown on request, faults and all', () => {
    const help = execFileSync(process.execPath, ['dist/engines/sim/main.js', '--help'], { encoding: 'utf8' });
    expect(help).toContain('--protocol llamacpp|');
    for (const fault of Object.keys(FAULTS)) expect(help).toContain(fault);
  });

  it.each([
    ['--port', '70000', 'from 0 to 65535'],
    ['--slots', '3000000000', 'from 1 to 65536'],
    ['--ctx', '1', 'from 2 to 1073741824'],
    ['--load-ms', '2147483648', 'from 0 to 1000000000'],
    ['--first-token-ms', '2147483648', 'from 0 to 1000000000'],
    ['--drain-ms', '2147483648', 'from 0 to 1000000000'],
    ['--fault', 'slow-load:2147483648', 'slow-load:MS, from 0 to 1000000000'],
    ['--fault', 'clock-skew:-9007199254740991', 'from -1000000000000 to 1000000000000'],
  ])('have bounds: %s %s', (name, value, message) => {
    expect(() => parseSimArgs([`${name}=${value}`])).toThrow(message);
  });

  it('take the key from the environment, as the real server does', () => {
    const { config } = parseSimArgs(['--protocol', 'llamacpp'], { LLAMA_API_KEY: 'k' });
    expect(config).toMatchObject({ apiKey: 'k', slots: 1, port: 8080 });
  });
});

describe('faults', () => {
  it('are listed as they were set, and survive a bad one', () => {
    const faults = new FaultSet();
    faults.set(['clock-skew:-5', 'eof-at-token:3', 'wrong-usage']);
    expect(() => faults.set(['none', 'sulk'])).toThrow();
    expect(faults.list()).toEqual(['clock-skew:-5', 'eof-at-token:3', 'wrong-usage']);
    expect([faults.ms('clock-skew'), faults.ms('slow-load')]).toEqual([-5, 0]);
    expect([faults.tokensUntilStrike(1), faults.tokensUntilStrike(3)]).toEqual([2, Number.POSITIVE_INFINITY]);
  });
});

const DEADLINE_MS = 10_000;

async function withSim(args: readonly string[], test: (sim: RunningSim) => Promise<void>): Promise<void> {
  const sim = await startEngineSim({ args: ['--tokens-per-second', '0', ...args] });
  try {
    await test(sim);
  } finally {
    await sim[Symbol.asyncDispose]();
  }
}

function post(sim: RunningSim, path: string, body: unknown, signal = AbortSignal.timeout(DEADLINE_MS)) {
  return fetch(`${sim.baseUrl}${path}`, { method: 'POST', body: JSON.stringify(body), signal });
}

/** The bytes of a stream of 8 tokens. */
async function streamed(sim: RunningSim): Promise<Buffer> {
  const answer = await post(sim, '/completion', { prompt: 'p', n_predict: 8, seed: 1, stream: true });
  return Buffer.from(await answer.arrayBuffer());
}

const eventsOf = (bytes: Buffer): string[] => bytes.toString('utf8').split('\n\n').slice(0, -1);
const countsOf = (bytes: Buffer): number[] =>
  eventsOf(bytes).map((event) => Number(/"tokens_predicted":(\d+)/.exec(event)?.[1] ?? Number.NaN));

describe('faults of the wire', () => {
  let sim: RunningSim;
  let healthy: string[];
  beforeAll(async () => {
    sim = await startEngineSim({ args: ['--tokens-per-second', '0', '--model', 'm'] });
    healthy = eventsOf(await streamed(sim));
  });
  afterAll(() => sim[Symbol.asyncDispose]());

  it('strike one event and leave the others', async () => {
    expect(healthy).toHaveLength(9);
    const struck: Readonly<Record<string, (event: string) => void>> = {
      'bad-json-at-token:2': (event) => expect(() => JSON.parse(event.slice('data: '.length))).toThrow(SyntaxError),
      'bad-sse-at-token:2': (event) => expect(event).toMatch(/^<html>/),
      'long-line-at-token:2': (event) => expect(event.length).toBeGreaterThan(10_000_000),
      'bad-utf8-at-token:2': (event) => expect(event).toContain('\uFFFD'),
    };
    for (const [fault, check] of Object.entries(struck)) {
      await sim.control(fault);
      const bytes = await streamed(sim);
      const events = eventsOf(bytes);
      check(events[2] ?? '');
      expect([...events.slice(0, 2), ...events.slice(3, 8)]).toEqual([...healthy.slice(0, 2), ...healthy.slice(3, 8)]);
      expect(bytes.includes(0xff)).toBe(fault.startsWith('bad-utf8'));
    }
  });

  it('put a byte that is no UTF-8 into the closing event when there is no token left', async () => {
    await sim.control('bad-utf8-at-token:8');
    const bytes = await streamed(sim);
    const events = eventsOf(bytes);
    expect(events.slice(0, 8)).toEqual(healthy.slice(0, 8));
    expect(events).toHaveLength(9);
    expect(events[8]).toContain('\uFFFD');
    expect(bytes.filter((byte) => byte === 0xff)).toHaveLength(1);
  });

  it('send an event twice or not at all, the closing one too', async () => {
    await sim.control('duplicate-at-token:0');
    expect(countsOf(await streamed(sim))).toEqual([1, 1, 2, 3, 4, 5, 6, 7, 8, 8]);
    await sim.control('missing-at-token:3');
    expect(countsOf(await streamed(sim))).toEqual([1, 2, 3, 5, 6, 7, 8, 8]);
    await sim.control('missing-at-token:8');
    expect(countsOf(await streamed(sim))).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  });

  it.each([0, 2, 8])('end the stream after %i tokens, with an error or in mid-body', async (count) => {
    await sim.control(`error-frame-at-token:${count}`);
    const events = eventsOf(await streamed(sim));
    expect(events).toEqual([...healthy.slice(0, count), expect.stringMatching(/^data: \{"error":\{"code":500,/)]);
    await sim.control(`eof-at-token:${count}`);
    await expect(streamed(sim)).rejects.toThrow('terminated');
  });

  it('falsify what the answer says', async () => {
    await sim.control(['wrong-usage', 'other-model', 'clock-skew:7200000']);
    const body = await (await post(sim, '/completion', { prompt: 'p', n_predict: 8 })).json();
    expect(body).toMatchObject({ model: 'not-m', tokens_predicted: 23, timings: { predicted_n: 23 } });
    expect(body).toHaveProperty(
      'timings.prompt_ms',
      expect.toSatisfy((ms: number) => ms >= 7_200_000),
    );
    await sim.control('none');
  });

  it('hang after the head', async () => {
    await sim.control('hang-after-headers');
    const answer = await post(sim, '/completion', { prompt: 'p', n_predict: 8, seed: 1, stream: true });
    expect([answer.status, (await sim.inspect()).busySlots]).toEqual([200, 1]);
    await sim.control('none');
    expect(eventsOf(Buffer.from(await answer.arrayBuffer())).slice(0, 8)).toEqual(healthy.slice(0, 8));
  });
});

describe('the control port', () => {
  it('counts requests, connections and completions', async () => {
    await withSim([], async (sim) => {
      const socket = connect(Number(new URL(sim.baseUrl).port), '127.0.0.1');
      await expect.poll(() => sim.inspect()).toMatchObject({ connections: 1 });
      socket.destroy();
      await expect.poll(() => sim.inspect()).toMatchObject({ connections: 0 });
      await streamed(sim);
      const refused = await post(sim, '/sim/control', { fault: 'sulk' });
      expect([refused.status, await refused.text()]).toEqual([400, expect.stringContaining("unknown fault 'sulk'")]);
      const completions = { started: 1, finished: 1, abandoned: 0 };
      const counts = { faults: [], busySlots: 0, deferred: 0, requests: 1, completions };
      expect(await sim.inspect()).toMatchObject(counts);
      const onMainPort = await fetch(`${sim.baseUrl}/sim/control`);
      expect(await onMainPort.json()).toMatchObject(counts);
    });
  });
});

describe('a client that goes', () => {
  it('is not noticed when told so: the completion keeps its slot to its end', async () => {
    await withSim(['--fault', 'hang-at-token:1', '--fault', 'ignore-cancel'], async (sim) => {
      // Not fetch: it opens a connection anew after an abort.
      const client = request(`${sim.baseUrl}/completion`, { method: 'POST', agent: false });
      client.end(JSON.stringify({ prompt: 'p', n_predict: 500, stream: true }));
      const [answer] = (await once(client, 'response')) as [IncomingMessage];
      await once(answer, 'data');
      client.destroy();
      await expect.poll(() => sim.inspect()).toMatchObject({ connections: 0, busySlots: 1 });
      await sim.control('ignore-cancel');
      const completions = { started: 1, finished: 1, abandoned: 0 };
      await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 0, completions });
    });
  });
});

describe('llama.cpp', () => {
  it('sends no event for half a character: the next one has the text, the last id and a count that has jumped', async () => {
    await withSim(['--split-characters'], async (sim) => {
      const answer = await post(sim, '/completion', { prompt: 'p', n_predict: 200, seed: 1, stream: true });
      const counts = countsOf(Buffer.from(await answer.arrayBuffer()));
      const jumps = counts.filter((count, index) => count - (counts[index - 1] ?? 0) === 2).length;
      expect(jumps).toBeGreaterThan(5);
      expect(counts.length).toBeLessThan(201);
      expect(counts.at(-1)).toBe(200);
    });
  });

  it('serves embeddings and reranking each only when started for it', async () => {
    const asked = { query: ' river', documents: [' morning', ' the river'], top_n: 1 };
    await withSim(['--embedding', '--model', 'm'], async (sim) => {
      const input = ['a', 'b'];
      const usage = { prompt_tokens: 4, total_tokens: 4 };
      const data = input.map((text, index) => ({ embedding: embed('m', text), index, object: 'embedding' }));
      const openAi = await post(sim, '/v1/embeddings', { input });
      expect(await openAi.json()).toEqual({ model: 'm', object: 'list', usage, data });
      const native = await post(sim, '/embedding', { content: 'a' });
      expect(await native.json()).toEqual([{ index: 0, embedding: [embed('m', 'a')] }]);
      expect((await post(sim, '/v1/rerank', asked)).status).toBe(501);
    });
    await withSim(['--reranking'], async (sim) => {
      const ranked = await post(sim, '/v1/rerank', asked);
      expect(await ranked.json()).toMatchObject({ results: [{ index: 1 }], usage: { prompt_tokens: 7 } });
      expect((await post(sim, '/v1/embeddings', { input: 'a' })).status).toBe(501);
    });
  });

  it.each([
    [{ prompt: [300, -1] }, 400, 'Prompt contains invalid tokens'],
    [{ prompt: [2 ** 25] }, 400, 'Prompt contains invalid tokens'],
    [{ prompt: [1.5] }, 400, 'Prompt contains invalid tokens'],
    [{ prompt: ['a', 'b'] }, 501, 'several prompts are not simulated'],
    [{ prompt: [300, 'b'] }, 501, 'several prompts are not simulated'],
    [{ prompt: 'p', stop: [1] }, 400, 'stop'],
    [{ prompt: 'p', seed: 1.5 }, 400, 'seed'],
  ])('refuses %j with %i', async (body, status, message) => {
    await withSim([], async (sim) => {
      const answer = await post(sim, '/completion', { n_predict: 1, ...body });
      expect([answer.status, await answer.text()]).toEqual([status, expect.stringContaining(message)]);
    });
  });

  it('reads the lower 32 bits of a seed', async () => {
    await withSim([], async (sim) => {
      const textOf = async (seed: string) => {
        const body = `{"prompt":"p","n_predict":20,"seed":${seed}}`;
        const signal = AbortSignal.timeout(DEADLINE_MS);
        return (await (await fetch(`${sim.baseUrl}/completion`, { method: 'POST', body, signal })).json()).content;
      };
      expect(await textOf(String(2n ** 60n + 2n ** 40n))).toBe(await textOf('0'));
      expect(await textOf(String(2 ** 32 + 5))).toBe(await textOf('5'));
      expect(await textOf('18446744073709551615')).not.toBe(undefined);
    });
  });

  it('tells whether a slot is free when asked so, and how many were busy while it decoded', async () => {
    await withSim(['--slots', '2'], async (sim) => {
      const slots = async (query: string) => (await fetch(`${sim.baseUrl}/slots${query}`)).status;
      const busyPerDecode = async () =>
        /^llamacpp:n_busy_slots_per_decode (.*)$/m.exec(await (await fetch(`${sim.baseUrl}/metrics`)).text())?.[1];
      expect(await busyPerDecode()).toBe('0');
      await streamed(sim);
      expect(await busyPerDecode()).toBe('1');
      await sim.control('hang-at-token:0');
      const one = streamed(sim);
      await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 1 });
      expect(await slots('?fail_on_no_slot=1')).toBe(200);
      const two = streamed(sim);
      await expect.poll(() => sim.inspect()).toMatchObject({ busySlots: 2 });
      expect([await slots('?fail_on_no_slot=1'), await slots('')]).toEqual([503, 200]);
      await sim.control('none');
      await Promise.all([one, two]);
      expect(Number(await busyPerDecode())).toBeGreaterThan(1);
    });
  });
});

describe('an engine that tells its clients that it fails', () => {
  it('sends each its error: in mid-stream an event, before the head a status', async () => {
    const { config } = parseSimArgs(['--slots', '2', '--tokens-per-second', '0']);
    const faults = new FaultSet();
    faults.set(['hang-at-token:3']);
    const death = { lines: [], toldError: 'dead', end: 'serves on' } as const;
    const engine = new SimEngine(config, faults, { crash: death, cudaError: death, runtimeOom: death }, () => {});
    const frames: StreamFrames = {
      headers: { 'Content-Type': 'text/event-stream' },
      headWaitsFor: 'event',
      keepAlive: null,
      token: ({ count }) => `data: ${count}\n\n`,
      last: () => '',
      error: (message) => `data: ${message}\n\n`,
    };
    const server = createSimServer(engine, {
      routeOf: () => (call) => streamCompletion(call, COMPLETION, frames),
      refuse: ({ response }, error) => response.writeHead(500).end(String(error)),
      ...{ noticesGoneClient: 'at once', keepAliveMs: 1, requestsPerConnection: 0 },
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    const [one, two] = await Promise.all([fetch(url), fetch(url)]);
    const deferred = fetch(url);
    await expect.poll(() => engine.slots.deferredCount).toBe(1);
    faults.set(['crash-at-token:3']);
    for (const answer of [one, two]) expect(await answer.text()).toMatch(/^(data: \d\n\n)+data: dead\n\n$/);
    expect([(await deferred).status, await (await deferred).text()]).toEqual([500, 'Error: dead']);
    expect(engine.completions).toEqual({ started: 2, finished: 0, abandoned: 2 });
    server.close();
  });
});

const COMPLETION: Completion = {
  ...{ prompt: 'p', promptTokens: 1, maxTokens: 8, seed: 1, idSlot: -1, stop: NO_STOP, settings: {} },
  sampling: SAMPLING,
};

describe('the process', () => {
  it.each([
    ['--fault', 'oom-at-load'],
    ['--vram-bytes', '2097152', '--vram-free-bytes', '1'],
  ])('ends with 1 and the engine’s lines when the model does not fit (%s %s)', async (...args) => {
    const sim = await startEngineSim({ args, until: 'control' });
    expect(await sim.exited).toEqual({ code: 1, signal: null });
    expect(sim.lines.join('\n')).toMatch(/allocating \S+ MiB on device 0: cudaMalloc failed: out of memory/);
    expect(sim.lines.join('\n')).not.toContain('listening on');
  });

  it.each([
    [['--fault', 'ignore-sigterm', '--fault', 'orphan-child'], /ready on/],
    [['--fault', 'never-ready'], /loading model/],
  ])('ends with its standard input when told to, and its group with it (%j)', async (args, line) => {
    const entry = fileURLToPath(new URL('../../dist/engines/sim/main.js', import.meta.url));
    const child = spawn(process.execPath, [entry, '--port', '0', '--exit-with-stdin', ...args], {
      stdio: ['pipe', 'ignore', 'pipe'],
      detached: true,
    });
    try {
      const exited = once(child, 'close');
      const lines = createInterface({ input: child.stderr });
      await new Promise<void>((resolve) => lines.on('line', (said) => line.test(said) && resolve()));
      expect(child.exitCode).toBeNull();
      child.stdin.end();
      expect(await exited).toEqual([null, 'SIGKILL']);
      await expect.poll(() => groupMembers(child.pid ?? 0)).toEqual([]);
    } finally {
      try {
        process.kill(-(child.pid ?? 0), 'SIGKILL');
      } catch {
        // The whole group is gone, as it should be.
      }
    }
  });

  it('ends by itself although its standard input is still open', async () => {
    const entry = fileURLToPath(new URL('../../dist/engines/sim/main.js', import.meta.url));
    const child = spawn(process.execPath, [entry, '--port', '0', '--exit-with-stdin'], {
      stdio: ['pipe', 'ignore', 'pipe'],
      detached: true,
    });
    try {
      const exited = once(child, 'close');
      const lines = createInterface({ input: child.stderr });
      await new Promise<void>((resolve) => lines.on('line', (said) => /ready on/.test(said) && resolve()));
      child.kill('SIGTERM');
      expect(await exited).toEqual([0, null]);
    } finally {
      child.kill('SIGKILL');
    }
  });

  it('loads as much longer as it is told', async () => {
    const sim = await startEngineSim({ args: ['--fault', 'slow-load:600000'], until: 'bound' });
    expect((await fetch(`${sim.baseUrl}/health`)).status).toBe(503);
    await sim[Symbol.asyncDispose]();
  });

  it('serves on the CPU without a word but its log', async () => {
    await withSim(['--fault', 'cpu-fallback'], async (sim) => {
      expect(sim.lines.join('\n')).toContain('ggml_cuda_init: failed to initialize CUDA');
      expect(countsOf(await streamed(sim)).at(-1)).toBe(8);
    });
  });

  it.each(['cuda-error-at-token:1', 'oom-at-token:1'])('aborts on %s', async (fault) => {
    await withSim(['--fault', fault], async (sim) => {
      await expect(streamed(sim)).rejects.toThrow('terminated');
      expect(await sim.exited).toEqual({ code: null, signal: 'SIGABRT' });
      const text = fault.startsWith('oom') ? 'out of memory' : 'an illegal memory access was encountered';
      expect(sim.lines.join('\n')).toContain(`CUDA error: ${text}`);
    });
  });

  it('leaves a child that ignores SIGTERM and outlives it, in the same group', async () => {
    const sim = await startEngineSim({ args: ['--fault', 'orphan-child'] });
    const child = Number(/^engine-sim: child (\d+)/m.exec(sim.lines.join('\n'))?.[1]);
    process.kill(-sim.pid, 'SIGTERM');
    expect(await sim.exited).toEqual({ code: 0, signal: null });
    expect(commandOf(child)).toContain('sleep');
    await sim[Symbol.asyncDispose]();
    await expect.poll(() => commandOf(child)).toBe('');
  });
});

/** '' for a process that is gone or only waits to be reaped. */
function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8');
  } catch {
    return '';
  }
}
