import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseSimArgs } from '../../src/engines/sim/cli.js';
import { FaultSet } from '../../src/engines/sim/faults.js';
import { detokenize, Generator, tokenize } from '../../src/engines/sim/model.js';
import { SlotPool } from '../../src/engines/sim/slots.js';

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
    expect(() => parseSimArgs(['--protocol', 'vllm'])).toThrow("protocol 'vllm' is not built yet");
    expect(() => parseSimArgs(['--slots', '0'])).toThrow('--slots must be a whole number of at least 1');
    expect(() => new FaultSet().set(['sulk'])).toThrow("unknown fault 'sulk'");
    expect(() => new FaultSet().set(['hang-at-token'])).toThrow('hang-at-token:N');
  });

  it('take the key from the environment, as the real server does', () => {
    expect(parseSimArgs(['--protocol', 'llamacpp'], { LLAMA_API_KEY: 'k' })).toMatchObject({ apiKey: 'k', slots: 1 });
  });
});
