/**
 * What every adapter promises, shown against its engine's simulator as a real process, and against a real llama-server
 * where there is one.
 */
import { inspect } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import {
  adapterFor,
  ask,
  deadline,
  failure,
  MODEL,
  PROTOCOLS,
  type Protocol,
  type RunningEngine,
  run,
  startRealLlamaServer,
  startRun,
  untilReady,
  withSim,
} from '../support/adapters.js';
import { startEngineSim } from '../support/engineSim.js';

interface Subject {
  readonly name: string;
  readonly protocol: Protocol;
  readonly start: (options: { slots: number; ctx: number }) => Promise<RunningEngine | null>;
  /** Long enough to be caught in the middle. */
  readonly longTokens: number;
  readonly ctx: number;
}

const simulated = PROTOCOLS.map(
  (protocol): Subject => ({
    name: `${protocol} (simulated)`,
    protocol,
    longTokens: 900_000,
    ctx: 1_000_000,
    start: ({ slots, ctx }) => {
      const size = ['--slots', String(slots), '--ctx', String(ctx), '--model', MODEL];
      return startEngineSim({ protocol, args: ['--tokens-per-second', '0', ...size] });
    },
  }),
);
const real: Subject = {
  name: 'llama-server (real)',
  protocol: 'llamacpp',
  longTokens: 3_500,
  ctx: 4_096,
  start: startRealLlamaServer,
};

/** What an engine has no words for. */
const SILENT_ABOUT: Readonly<Record<Protocol, readonly ('tokens' | 'counters')[]>> = {
  llamacpp: [],
  vllm: [],
  tgi: [],
  triton: ['tokens', 'counters'],
};

describe.each([...simulated, real])('$name', ({ protocol, start, longTokens, ctx }) => {
  const silent = SILENT_ABOUT[protocol];
  let engine: RunningEngine | null = null;
  let adapter: EngineAdapter;
  beforeAll(async () => {
    engine = await start({ slots: 2, ctx });
    if (engine === null) return;
    adapter = adapterFor(protocol, engine, { slots: 2, contextLength: ctx });
    await untilReady(adapter);
  }, 30_000);
  afterAll(async () => {
    try {
      await adapter?.close();
    } finally {
      await engine?.[Symbol.asyncDispose]();
    }
  });
  const promise = (name: string, test: (running: RunningEngine) => Promise<void>) =>
    it(name, async ({ skip }) => {
      if (engine === null) return skip('no real engine here');
      await test(engine);
    });

  promise('tells its health and properties', async () => {
    expect(await adapter.health(deadline())).toEqual({
      ...{ state: 'ready', live: true, ready: true, progressing: null, silentForMs: null, frameAgoMs: null },
    });
    const props = await adapter.props(deadline());
    expect(props).toMatchObject({ modelId: MODEL, contextLength: ctx, slotsTotal: 2, slotsBusy: 0 });
    expect(props.version).toMatch(/\d/);
  });

  promise('streams the tokens and the end, and counts both ways alike', async () => {
    const request = ask({ maxTokens: 200 });
    const { tokens, text, end, error } = await run(adapter, request);
    expect(error).toBeNull();
    expect(end).toMatchObject({ finishReason: 'length', tokensOut: 200 });
    expect(end).not.toHaveProperty('disbelieved');
    // A real tokenizer makes characters of several tokens, so there may be fewer token events than tokens.
    expect(tokens).toBeLessThanOrEqual(200);
    expect(tokens).toBeGreaterThan(20);
    expect(Buffer.byteLength(text)).toBeGreaterThan(tokens / 2);
    const counted = await adapter.countTokens(request.prompt, deadline());
    expect(counted).toBe(silent.includes('tokens') ? null : end?.tokensIn);
    expect(end?.tokensIn === null).toBe(silent.includes('tokens'));
    expect(end?.decodeMs).toBeGreaterThanOrEqual(0);
  });

  promise('repeats the text for a seed in every slot, and only for that seed and prompt', async () => {
    const texts: string[] = [];
    for (const slot of [0, 1, 0]) texts.push((await run(adapter, ask({ slot, maxTokens: 40 }))).text);
    expect(new Set(texts).size).toBe(1);
    expect((await run(adapter, ask({ seed: 8n, maxTokens: 40 }))).text).not.toBe(texts[0]);
    expect((await run(adapter, ask({ prompt: 'Once', maxTokens: 40 }))).text).not.toBe(texts[0]);
  });

  promise('takes any 63-bit seed', async () => {
    for (const seed of [0n, 2n ** 32n - 1n, 2n ** 53n, 2n ** 63n - 1n]) {
      expect(await run(adapter, ask({ seed, maxTokens: 2 }))).toMatchObject({ error: null, end: { tokensOut: 2 } });
    }
  });

  promise('serves many completions, one after the other and together', async () => {
    const outcomes = await Promise.all(Array.from({ length: 24 }, (_, i) => run(adapter, ask({ slot: i % 2 }))));
    for (let i = 0; i < 12; i += 1) outcomes.push(await run(adapter, ask({ slot: i % 2 })));
    expect(outcomes.filter(({ end, error }) => end?.tokensOut !== 8 || error !== null)).toEqual([]);
  });

  promise('refuses a prompt that does not fit, and says so as a mistake of the caller', async () => {
    const tooLong = await run(adapter, ask({ prompt: 'the '.repeat(ctx + 1) }));
    expect(failure(tooLong)).toBe('INVALID_PARAMS before_first_token lost=false');
  });

  promise('counts what it has done', async () => {
    const before = await adapter.metrics(deadline());
    await run(adapter, ask({ maxTokens: 5 }));
    const told = async () => {
      const after = await adapter.metrics(deadline());
      return [after.running, after.waiting, Number(after.tokensOutTotal) - Number(before.tokensOutTotal)];
    };
    await expect.poll(told).toEqual([0, 0, silent.includes('counters') ? 0 : 5]);
    expect(before.tokensOutTotal === null).toBe(silent.includes('counters'));
  });

  promise('shows what is under way, and that it moves', async () => {
    const abort = new AbortController();
    const { over } = await startRun(adapter, ask({ maxTokens: longTokens }), 3, abort.signal);
    expect(await adapter.health(deadline())).toMatchObject({ state: 'ready', progressing: true });
    await expect.poll(async () => (await adapter.metrics(deadline())).running).toBe(1);
    const reason = new Error('enough');
    abort.abort(reason);
    expect((await over).error).toBe(reason);
    expect(await adapter.health(deadline())).toMatchObject({ progressing: null });
  });

  promise('has freed the slot of a cancelled completion when it says so, and serves on', async () => {
    const request = ask({ maxTokens: longTokens, slot: 1 });
    const { over } = await startRun(adapter, request, 3);
    const cancel = await adapter.cancel({ requestId: request.requestId, slot: 1 }, deadline());
    expect(cancel).toEqual({ outcome: 'slot_free', verifiedBy: expect.any(String) });
    expect(await adapter.metrics(deadline())).toMatchObject({ running: 0, waiting: 0 });
    expect((await over).error).toBeInstanceOf(Error);
    expect(await run(adapter, ask({ slot: 1 }))).toMatchObject({ error: null });
  });

  promise('cancels what is not there without a word', async () => {
    const outcome = await adapter.cancel({ requestId: 'never-was', slot: 0 }, deadline());
    expect(outcome.outcome).toBe('slot_free');
  });

  promise('frees the slot when its reader walks away', async () => {
    for await (const group of adapter.stream(ask({ maxTokens: longTokens }), deadline())) {
      expect(group.length).toBeGreaterThan(0);
      break;
    }
    await expect.poll(async () => (await adapter.metrics(deadline())).running).toBe(0);
    expect(await run(adapter, ask())).toMatchObject({ error: null });
  });

  promise('refuses what this engine, started like this, does not offer', async () => {
    const requestId = 'none';
    for (const attempt of [
      () => adapter.embed({ requestId, inputs: ['a'] }, deadline()),
      () => adapter.rerank({ requestId, query: 'q', documents: ['a'] }, deadline()),
    ]) {
      await expect(attempt()).rejects.toMatchObject({ code: 'INVALID_PARAMS', engineLost: false, retriable: false });
    }
  });

  promise('ends what is under way as lost when it is closed', async (running) => {
    const other = adapterFor(protocol, running);
    const { over } = await startRun(other, ask({ maxTokens: longTokens }), 3);
    await other.close();
    expect(failure(await over)).toBe('WORKER_RESET streaming lost=true');
    await expect.poll(async () => (await adapter.metrics(deadline())).running).toBe(0);
  });
});

describe.each(PROTOCOLS)('%s: states of the process', (protocol) => {
  it('is not ready while it loads, refuses work as something that may pass, and becomes ready', async () => {
    const whileLoading = DIALECT_LOADING[protocol];
    await withSim(
      protocol,
      ['--fault', 'never-ready'],
      async (sim, adapter) => {
        await expect.poll(() => adapter.health(deadline())).toMatchObject({ ...whileLoading, ready: false });
        expect(failure(await run(adapter, ask()))).toMatch(/^(?:POOL_UNREADY|WORKER_RESET) before_first_token/);
        await sim.control('none');
        await expect.poll(() => adapter.health(deadline())).toMatchObject({ state: 'ready' });
        expect(await run(adapter, ask())).toMatchObject({ tokens: 8, error: null });
      },
      { until: 'control' },
    );
  });

  // Triton has no keys.
  it.skipIf(protocol === 'triton')(
    'wants its key, except for its health, and keeps it out of what it says',
    async () => {
      await withSim(protocol, ['--api-key', 'key-0123456'], async (sim, adapter) => {
        expect(await adapter.health(deadline())).toMatchObject({ state: 'ready' });
        expect(failure(await run(adapter, ask()))).toBe('INTERNAL before_first_token lost=false');
        const withKey = adapterFor(protocol, sim, { apiKey: 'key-0123456' });
        const withOther = adapterFor(protocol, sim, { apiKey: 'key-6543210' });
        try {
          expect(await run(withKey, ask())).toMatchObject({ tokens: 8, error: null });
          const refused = await run(withOther, ask());
          expect(failure(refused)).toBe('INTERNAL before_first_token lost=false');
          expect(inspect(refused.error, { depth: null })).not.toContain('key-6543210');
        } finally {
          await Promise.all([withKey.close(), withOther.close()]);
        }
      });
    },
  );

  it('holds the text of a character back until it is whole', async () => {
    await withSim(protocol, ['--split-characters', '--ctx', '4000'], async (_sim, adapter) => {
      const { text, end, error } = await run(adapter, ask({ maxTokens: 400 }));
      expect(error).toBeNull();
      expect(end).toMatchObject({ tokensOut: 400 });
      expect(end).not.toHaveProperty('disbelieved');
      // Triton's ensemble decodes each token alone: what it cut is lost, and nobody behind it can mend that.
      expect(text.includes('�')).toBe(protocol === 'triton');
      expect(/\p{Emoji_Presentation}/u.test(text)).toBe(protocol !== 'triton');
    });
  });

  it('leaves no connection behind', async () => {
    await withSim(protocol, ['--slots', '4'], async (sim, adapter) => {
      await Promise.all(Array.from({ length: 8 }, () => run(adapter, ask())));
      await adapter.metrics(deadline());
      await adapter.close();
      await expect.poll(() => sim.inspect()).toMatchObject({ connections: 0, busySlots: 0, deferred: 0 });
    });
  });
});

const DIALECT_LOADING: Readonly<Record<Protocol, { state: string; live: boolean }>> = {
  llamacpp: { state: 'loading', live: true },
  vllm: { state: 'unreachable', live: false },
  tgi: { state: 'unreachable', live: false },
  triton: { state: 'unreachable', live: false },
};

describe('embeddings and reranking', () => {
  const subjects = [
    ...(['llamacpp', 'vllm'] as const).map((protocol) => ({
      name: `${protocol} (simulated)`,
      protocol,
      start: (): Promise<RunningEngine | null> =>
        startEngineSim({ protocol, args: ['--embedding', '--reranking', '--model', MODEL] }),
      reranks: true,
    })),
    {
      name: 'llama-server (real)',
      protocol: 'llamacpp' as const,
      start: () => startRealLlamaServer({ slots: 1, ctx: 512, args: ['--embedding', '--pooling', 'mean'] }),
      reranks: false,
    },
  ];

  it.for(subjects)('$name gives a vector per input, in order, and ranks', async (subject, { skip }) => {
    const { protocol, start, reranks } = subject;
    await using engine = await start();
    if (engine === null) return skip('no real engine here');
    const adapter = adapterFor(protocol, engine);
    try {
      await untilReady(adapter);
      const inputs = ['a river', 'a stone', 'a river'];
      const { vectors, tokensIn } = await adapter.embed({ requestId: 'e', inputs }, deadline());
      expect(vectors).toHaveLength(3);
      expect(vectors[0]?.length).toBeGreaterThan(3);
      expect(vectors[2]?.map((x) => x.toFixed(4))).toEqual(vectors[0]?.map((x) => x.toFixed(4)));
      expect(vectors[1]).not.toEqual(vectors[0]);
      expect(tokensIn).toBeGreaterThan(3);
      if (!reranks) return;
      const { results } = await adapter.rerank({ requestId: 'r', query: 'a river', documents: inputs }, deadline());
      expect(results.map(({ index }) => index).sort()).toEqual([0, 1, 2]);
      expect(results.map(({ score }) => score)).toEqual([...results.map(({ score }) => score)].sort((a, b) => b - a));
    } finally {
      await adapter.close();
    }
  });
});
