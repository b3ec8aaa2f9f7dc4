import { execFileSync } from 'node:child_process';
import { getEventListeners } from 'node:events';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { Batcher } from '../../src/runtime/batcher.js';
import { Reconciler } from '../../src/runtime/reconciler.js';
import { Scope } from '../../src/runtime/scope.js';
import { delay, pollUntil, within } from '../../src/runtime/wait.js';

describe('Scope', () => {
  it('closes in reverse, tries all, keeps the first failure, runs once', async () => {
    const seen: string[] = [];
    const scope = new Scope((name, error) => seen.push(error === undefined ? name : `${name}!`));
    scope.defer('a', () => {});
    scope.defer('b', () => Promise.reject(new Error('first')));
    scope.defer('c', () => {
      throw new Error('earlier');
    });
    await expect(scope.close()).rejects.toThrow('earlier');
    await expect(scope.close()).rejects.toThrow('earlier');
    expect(seen).toEqual(['c!', 'b!', 'a']);
    expect(() => scope.defer('d', () => {})).toThrow('would leak');
  });
});

describe('Batcher', () => {
  function recording(options: { maxItems?: number; maxWaiting?: number } = {}) {
    const batches: number[][] = [];
    let release: () => void = () => {};
    const batcher = new Batcher<number, number>({
      maxItems: options.maxItems ?? 100,
      maxWaiting: options.maxWaiting ?? 100,
      overflow: () => new Error('overflow'),
      write: async (items) => {
        batches.push([...items]);
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        if (items.includes(13)) throw new Error('unlucky');
        return items.map((item) => item * 2);
      },
    });
    return { batcher, batches, release: () => release() };
  }

  it('writes together what arrives together, and what comes meanwhile in the next batch', async () => {
    const { batcher, batches, release } = recording();
    const first = [1, 2, 3].map((item) => batcher.submit(item));
    await expect.poll(() => batches).toEqual([[1, 2, 3]]);
    const second = [4, 5].map((item) => batcher.submit(item));
    release();
    expect(await Promise.all(first)).toEqual([2, 4, 6]);
    await expect
      .poll(() => batches)
      .toEqual([
        [1, 2, 3],
        [4, 5],
      ]);
    release();
    expect(await Promise.all(second)).toEqual([8, 10]);
  });

  it('fails a batch as one, goes on after it, and bounds what waits', async () => {
    const { batcher, batches, release } = recording({ maxItems: 1, maxWaiting: 2 });
    const unlucky = batcher.submit(13);
    const lucky = batcher.submit(1);
    await expect(batcher.submit(2)).rejects.toThrow('overflow');
    await expect.poll(() => batches.length).toBe(1);
    release();
    await expect(unlucky).rejects.toThrow('unlucky');
    await expect.poll(() => batches.length).toBe(2);
    release();
    expect(await lucky).toBe(2);
  });
});

describe('Reconciler', () => {
  it('runs once for many wakes, never two at a time, and again for a wake during a run', async () => {
    let running = 0;
    let runs = 0;
    let release: () => void = () => {};
    const loop = new Reconciler({
      name: 'test',
      intervalMs: 60_000,
      onError: () => {},
      run: async () => {
        running += 1;
        runs += 1;
        expect(running).toBe(1);
        await new Promise<void>((resolve) => {
          release = resolve;
        });
        running -= 1;
      },
    });
    loop.start();
    await expect.poll(() => runs).toBe(1);
    loop.wake();
    loop.wake();
    release();
    await expect.poll(() => runs).toBe(2);
    release();
    await delay(20);
    expect(runs).toBe(2);
    await loop.stop();
  });

  it('survives a failing run and tells of it', async () => {
    const errors: unknown[] = [];
    const loop = new Reconciler({
      name: 'test',
      intervalMs: 1,
      onError: (_name, error) => errors.push(error),
      run: () => Promise.reject(new Error('no')),
    });
    loop.start();
    await expect.poll(() => errors.length).toBeGreaterThan(2);
    await loop.stop();
  });
});

describe('waits', () => {
  it('end by abort and by deadline', async () => {
    const abort = new AbortController();
    const long = delay(60_000, abort.signal);
    abort.abort();
    await long;
    expect(await pollUntil(async () => false, { everyMs: 1, deadlineMs: 20 })).toBe(false);
    expect(await pollUntil(async () => true, { everyMs: 1, deadlineMs: 20 })).toBe(true);
  });
});

describe('within', () => {
  it('aborts after its time, or with a parent and its reason, and leaves nothing at the parent', async () => {
    const parent = new AbortController();
    {
      using late = within(5, parent.signal);
      await new Promise((resolve) => late.signal.addEventListener('abort', resolve));
      expect(late.signal.reason).toMatchObject({ name: 'TimeoutError' });
      using early = within(60_000, parent.signal);
      using never = within(null, parent.signal, early.signal);
      parent.abort('enough');
      expect([early.signal.reason, never.signal.reason]).toEqual(['enough', 'enough']);
      using already = within(60_000, parent.signal);
      expect(already.signal.aborted).toBe(true);
    }
    const fresh = new AbortController();
    within(60_000, fresh.signal)[Symbol.dispose]();
    expect(getEventListeners(fresh.signal, 'abort')).toEqual([]);
  });

  it('fires although nobody but its listener holds it, and everything is collected', () => {
    const script = `
      import { within } from './dist/runtime/wait.js';
      const held = within(200, new AbortController().signal);
      const fired = new Promise((resolve) => held.signal.addEventListener('abort', () => resolve('fired')));
      const churn = setInterval(() => globalThis.gc(), 5);
      const outcome = await Promise.race([fired, new Promise((resolve) => setTimeout(resolve, 5_000, 'late'))]);
      clearInterval(churn);
      console.log(outcome);
      process.exit(0);`;
    const args = ['--expose-gc', '--input-type=module', '-e', script];
    expect(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 }).trim()).toBe('fired');
  });

  it('is what everybody uses: AbortSignal.any would lose its timeouts', () => {
    const files = readdirSync('src', { recursive: true, encoding: 'utf8' }).filter((file) => file.endsWith('.ts'));
    expect(files.length).toBeGreaterThan(100);
    expect(files.filter((file) => /AbortSignal\.any\(/.test(readFileSync(join('src', file), 'utf8')))).toEqual([]);
  });
});
