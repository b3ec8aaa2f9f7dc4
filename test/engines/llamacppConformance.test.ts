/** The adapter against the simulator as a real process: what the adapter promises, and how it tells each failure. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  type CompletionRequest,
  type EngineAdapter,
  EngineError,
  type EngineFrame,
} from '../../src/engines/adapter.js';
import { createLlamaCppAdapter, type LlamaCppAdapterOptions } from '../../src/engines/llamacpp/adapter.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const DEADLINE_MS = 10_000;
const deadline = (): AbortSignal => AbortSignal.timeout(DEADLINE_MS);
const ask = (over: Partial<CompletionRequest> = {}): CompletionRequest => ({
  ...{ prompt: 'Once upon a time', maxTokens: 8, seed: 7n, strict: true, slot: 0 },
  ...over,
});

interface Outcome {
  readonly text: string;
  readonly tokens: number;
  readonly end: EngineFrame | null;
  readonly error: unknown;
}

/** Reads a stream to its end or its failure; `onTokens` hears how many tokens have come so far. */
async function run(
  adapter: EngineAdapter,
  request: CompletionRequest,
  signal = deadline(),
  onTokens: (tokens: number) => void = () => {},
): Promise<Outcome> {
  let text = '';
  let tokens = 0;
  let end: EngineFrame | null = null;
  try {
    for await (const group of adapter.stream(request, signal)) {
      for (const frame of group) {
        if (frame.kind === 'end') end = frame;
        else {
          text += frame.text;
          tokens += 1;
        }
      }
      onTokens(tokens);
    }
    return { text, tokens, end, error: null };
  } catch (error) {
    return { text, tokens, end, error };
  }
}

function failure({ error }: Outcome): string {
  if (!(error instanceof EngineError)) return `not an EngineError: ${error}`;
  return `${error.code} ${error.phase} lost=${error.engineLost}`;
}

/** One simulator for one test, and an adapter bound to it. */
async function withSim(
  args: readonly string[],
  test: (sim: RunningSim, adapter: EngineAdapter) => Promise<void>,
  options: Omit<LlamaCppAdapterOptions, 'baseUrl'> & { until?: 'ready' | 'bound' } = {},
): Promise<void> {
  const { until = 'ready', ...adapterOptions } = options;
  const sim = await startEngineSim({ args: ['--tokens-per-second', '0', ...args], until });
  const adapter = createLlamaCppAdapter({ baseUrl: sim.baseUrl, ...adapterOptions });
  try {
    await test(sim, adapter);
  } finally {
    await adapter.close();
    await sim[Symbol.asyncDispose]();
  }
}

describe('a healthy engine', () => {
  let sim: RunningSim;
  let adapter: EngineAdapter;
  beforeAll(async () => {
    sim = await startEngineSim({ args: ['--tokens-per-second', '0', '--slots', '3', '--ctx', '600', '--model', 'm'] });
    adapter = createLlamaCppAdapter({ baseUrl: sim.baseUrl });
  });
  afterAll(async () => {
    await adapter.close();
    await sim[Symbol.asyncDispose]();
  });

  it('tells its health and properties', async () => {
    expect(await adapter.health(deadline())).toEqual({ state: 'ready' });
    const props = { version: 'b11669-sim', modelId: 'm', contextLength: 600, slotsTotal: 3 };
    expect(await adapter.props(deadline())).toEqual(props);
  });

  it('streams one token frame per token, then the end', async () => {
    const { tokens, end, error } = await run(adapter, ask({ maxTokens: 300 }));
    expect(error).toBeNull();
    expect(tokens).toBe(300);
    const tokensIn = await adapter.countTokens('Once upon a time', deadline());
    expect(end).toMatchObject({ kind: 'end', finishReason: 'length', tokensIn, tokensOut: 300 });
  });

  it('repeats the text for a seed in every slot, and only for that seed', async () => {
    const texts = await Promise.all([0, 1, 2].map(async (slot) => (await run(adapter, ask({ slot }))).text));
    expect(new Set(texts).size).toBe(1);
    expect((await run(adapter, ask({ seed: 8n }))).text).not.toBe(texts[0]);
    expect((await run(adapter, ask({ prompt: 'Once' }))).text).not.toBe(texts[0]);
  });

  it('serves many completions, one after the other and together', async () => {
    const outcomes = await Promise.all(Array.from({ length: 40 }, (_, i) => run(adapter, ask({ slot: i % 3 }))));
    for (let i = 0; i < 40; i += 1) outcomes.push(await run(adapter, ask({ slot: i % 3 })));
    expect(outcomes.filter(({ tokens, end, error }) => tokens !== 8 || end === null || error !== null)).toEqual([]);
  });

  it('refuses a prompt that does not fit, and stops at a full context', async () => {
    const tooLong = await run(adapter, ask({ prompt: 'the '.repeat(700) }));
    expect(failure(tooLong)).toBe('INVALID_PARAMS before_first_token lost=false');
    const prompt = ' the'.repeat(590);
    const { tokens, end } = await run(adapter, ask({ prompt, maxTokens: 100 }));
    expect([tokens, end]).toMatchObject([9, { kind: 'end', finishReason: 'length', tokensIn: 591, tokensOut: 9 }]);
  });

  it('counts its tokens', async () => {
    const before = await adapter.metrics(deadline());
    await run(adapter, ask({ maxTokens: 5 }));
    const after = await adapter.metrics(deadline());
    expect(after.tokensOutTotal - before.tokensOutTotal).toBe(5);
    expect(after).toMatchObject({ running: 0, waiting: 0, kvUsage: null });
    expect(await adapter.isSlotBusy(0, deadline())).toBe(false);
    expect(await adapter.isSlotBusy(99, deadline())).toBeNull();
  });
});

describe('slots', () => {
  it('defers who finds the slot taken, and gives it on when a client goes', async () => {
    await withSim(['--slots', '2', '--fault', 'hang-at-token:1'], async (sim, adapter) => {
      const abort = new AbortController();
      let hung: Promise<Outcome> | null = null;
      await new Promise<void>((resolve) => {
        hung = run(adapter, ask(), abort.signal, () => resolve());
      });
      expect(await adapter.isSlotBusy(0, deadline())).toBe(true);
      expect(await adapter.isSlotBusy(1, deadline())).toBe(false);
      const second = run(adapter, ask());
      await expect.poll(() => adapter.metrics(deadline())).toMatchObject({ running: 1, waiting: 1 });
      const reason = new Error('enough');
      abort.abort(reason);
      expect(await hung).toMatchObject({ error: reason });
      await expect.poll(() => adapter.metrics(deadline())).toMatchObject({ running: 1, waiting: 0 });
      await sim.control('none');
      expect(await second).toMatchObject({ tokens: 8, error: null });
    });
  });

  it('frees the slot of a fast stream whose reader walks away', async () => {
    await withSim(['--ctx', '1000000'], async (_sim, adapter) => {
      for await (const group of adapter.stream(ask({ maxTokens: 900_000 }), deadline())) {
        expect(group.length).toBeGreaterThan(0);
        break;
      }
      await expect.poll(() => adapter.isSlotBusy(0, deadline())).toBe(false);
      expect(await run(adapter, ask())).toMatchObject({ tokens: 8, error: null });
    });
  });
});

describe('a failing engine', () => {
  it.each([0, 3])('crashes after %i tokens', async (count) => {
    await withSim(['--fault', `crash-at-token:${count}`], async (sim, adapter) => {
      const outcome = await run(adapter, ask());
      expect(outcome.tokens).toBe(count);
      expect(failure(outcome)).toBe(`WORKER_RESET ${count === 0 ? 'before_first_token' : 'streaming'} lost=true`);
      expect(await sim.exited).toEqual({ code: null, signal: 'SIGABRT' });
      expect(await adapter.health(deadline())).toMatchObject({ state: 'unreachable' });
      expect(failure(await run(adapter, ask()))).toBe('WORKER_RESET before_first_token lost=true');
    });
  });

  it.each([0, 2])('hangs after %i tokens while its health stays good', async (count) => {
    const idleTimeoutMs = 300;
    const args = ['--fault', `hang-at-token:${count}`];
    await withSim(
      args,
      async (_sim, adapter) => {
        const outcome = await run(adapter, ask());
        expect(outcome.tokens).toBe(count);
        expect(failure(outcome)).toBe(`DECODE_TIMEOUT ${count === 0 ? 'before_first_token' : 'streaming'} lost=true`);
        expect(await adapter.health(deadline())).toEqual({ state: 'ready' });
      },
      { idleTimeoutMs },
    );
  });

  it('is loading until it is ready', async () => {
    await withSim(
      ['--fault', 'never-ready'],
      async (sim, adapter) => {
        expect(await adapter.health(deadline())).toMatchObject({ state: 'loading' });
        await expect(adapter.props(deadline())).rejects.toMatchObject({ code: 'POOL_UNREADY', engineLost: false });
        expect(failure(await run(adapter, ask()))).toBe('POOL_UNREADY before_first_token lost=false');
        await sim.control('none');
        await expect.poll(() => adapter.health(deadline())).toEqual({ state: 'ready' });
      },
      { until: 'bound' },
    );
  });

  it('wants its key, except for its health', async () => {
    await withSim(['--api-key', 'k'], async (sim, adapter) => {
      expect(await adapter.health(deadline())).toEqual({ state: 'ready' });
      await expect(adapter.props(deadline())).rejects.toMatchObject({ code: 'INTERNAL', engineLost: false });
      const withKey = createLlamaCppAdapter({ baseUrl: sim.baseUrl, apiKey: 'k' });
      expect(await withKey.props(deadline())).toMatchObject({ slotsTotal: 1 });
      await withKey.close();
    });
  });
});

describe('SIGTERM', () => {
  it('ends the process with 0 and cuts streams without a last frame', async () => {
    await withSim(['--fault', 'hang-at-token:2'], async (sim, adapter) => {
      const outcome = await run(adapter, ask(), deadline(), (tokens) => {
        if (tokens === 2) sim.kill('SIGTERM');
      });
      expect(failure(outcome)).toBe('WORKER_RESET streaming lost=true');
      expect(await sim.exited).toEqual({ code: 0, signal: null });
    });
  });

  it('kills a process that is still loading', async () => {
    const sim = await startEngineSim({ args: ['--fault', 'never-ready'], until: 'bound' });
    sim.kill('SIGTERM');
    expect(await sim.exited).toEqual({ code: null, signal: 'SIGTERM' });
  });

  it('has no effect when told to be ignored', async () => {
    await withSim(['--fault', 'ignore-sigterm'], async (sim, adapter) => {
      sim.kill('SIGTERM');
      // Answered after the signal was delivered, and then again once the fault is gone and the signal works.
      expect(await run(adapter, ask())).toMatchObject({ tokens: 8, error: null });
      await sim.control('none');
      sim.kill('SIGTERM');
      expect(await sim.exited).toEqual({ code: 0, signal: null });
    });
  });
});
