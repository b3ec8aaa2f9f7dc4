/** Embeddings and rankings as calls under way: how long they may take, and what a cancel sees of them. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import type { EngineAdapter } from '../../src/engines/adapter.js';
import { DIALECTS } from '../../src/engines/dialects.js';
import { adapterFor, ask, deadline, failure, MODEL, run, startRun, untilReady } from '../support/adapters.js';
import { type RunningSim, startEngineSim } from '../support/engineSim.js';

const IDLE_MS = 2_000;

/** Looked at for so long: enough for a busy machine, and less than the call that hangs is waited for. */
const LOOK_MS = 1_000;

describe.each(['llamacpp', 'vllm'] as const)('%s: a call that hangs', (protocol) => {
  let sim: RunningSim;
  let adapter: EngineAdapter;

  beforeAll(async () => {
    const args = ['--embedding', '--model', MODEL, '--slots', '2', '--tokens-per-second', '50'];
    sim = await startEngineSim({ protocol, args });
    adapter = adapterFor(protocol, sim);
    await untilReady(adapter);
  });
  afterEach(async () => {
    await sim.control('none');
    await expect.poll(async () => (await sim.inspect()).busySlots).toBe(0);
  });
  afterAll(async () => {
    await adapter?.close();
    await sim?.[Symbol.asyncDispose]();
  });

  /** @returns how it ends, once its engine has it. */
  async function hang(requestId: string, asked = adapter): Promise<{ readonly over: Promise<unknown> }> {
    const { busySlots } = await sim.inspect();
    await sim.control('hang-at-token:0');
    const over = asked.embed({ requestId, inputs: ['a', 'b'] }, deadline()).catch((error: unknown) => error);
    await expect.poll(async () => (await sim.inspect()).busySlots, { interval: 5 }).toBe(busySlots + 1);
    return { over };
  }

  it('is given up after the idle time, not asked again, and seen to be silent before that', async () => {
    const hasty = adapterFor(protocol, sim, { idleTimeoutMs: IDLE_MS });
    await hasty.embed({ requestId: 'first', inputs: ['a'] }, deadline()); // vLLM asks for a name before its first
    const { started } = (await sim.inspect()).completions;
    const { over } = await hang('silent', hasty);
    await expect.poll(async () => (await hasty.health(deadline())).progressing, { interval: 20 }).toBe(false);
    expect(failure({ error: await over })).toBe('DECODE_TIMEOUT before_first_token lost=true');
    expect((await sim.inspect()).completions.started).toBe(started + 1);
    expect((await hasty.health(deadline())).silentForMs).toBeNull();
    await hasty.close();
  });

  it('is cancelled, and its engine seen to have let go', async () => {
    const { over } = await hang('canceled');
    const outcome = await adapter.cancel({ requestId: 'canceled', slot: null }, deadline());
    expect(outcome).toMatchObject({ outcome: 'slot_free' });
    expect(await over).toMatchObject({ message: 'canceled' });
    expect((await sim.inspect()).busySlots).toBe(0);
  });

  it('does not make the cancel of a completion beside it look ignored', async () => {
    const running = ask({ maxTokens: 400, slot: 1 });
    const { over: ran } = await startRun(adapter, running, 1);
    const { over } = await hang('beside');
    const looked = { requestId: running.requestId, slot: 1 };
    expect(['slot_free', 'acknowledged']).toContain(
      (await adapter.cancel(looked, AbortSignal.timeout(LOOK_MS))).outcome,
    );
    // This one waits for a slot that the texts have.
    const waiting = ask({ maxTokens: 400, slot: 0 });
    const waited = run(adapter, waiting);
    const last = await adapter.cancel({ requestId: waiting.requestId, slot: 0 }, AbortSignal.timeout(LOOK_MS));
    expect(last.outcome).not.toBe('unknown');
    await sim.control('none');
    expect(await over).toMatchObject({ vectors: [expect.any(Array), expect.any(Array)] });
    expect([(await ran).end, (await waited).end]).toEqual([null, null]);
  });
});

describe('what an engine may take', () => {
  const launched = (extraArgs: string[], extraEnv = {}) => ({ slots: 1, extraArgs, extraEnv });
  const ALL = ['completion', 'embedding', 'rerank'];

  it.each([
    ['llamacpp', launched([]), ['completion']],
    ['llamacpp', launched(['--embedding']), ['embedding']],
    ['llamacpp', launched(['--embeddings', '--pooling', 'mean']), ['embedding']],
    ['llamacpp', launched(['--embedding', '--rerank']), ['rerank']],
    ['llamacpp', launched([], { LLAMA_ARG_RERANKING: '1' }), ['rerank']],
    ['llamacpp', launched([], { LLAMA_ARG_EMBEDDINGS: '0' }), ['completion']],
    ['llamacpp', null, ALL],
    ['vllm', launched([]), ALL],
    ['vllm', launched(['--runner', 'pooling']), ['embedding', 'rerank']],
    ['vllm', launched(['--runner=pooling']), ['embedding', 'rerank']],
    ['vllm', launched(['--task', 'embed']), ['embedding', 'rerank']],
    ['vllm', launched(['--convert=classify']), ['embedding', 'rerank']],
    ['vllm', launched(['--runner', 'generate']), ['completion']],
    ['vllm', null, ALL],
    ['tgi', launched(['--embedding']), ['completion']],
    ['triton', null, ['completion']],
  ] as const)('%s %j: %j', (engine, how, workloads) => {
    expect(DIALECTS[engine].workloads(how)).toEqual(workloads);
  });
});
