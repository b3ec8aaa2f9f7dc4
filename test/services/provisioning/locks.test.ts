import { describe, expect, it } from 'vitest';
import { Locks } from '../../../src/services/provisioning/locks.js';

const never = new AbortController().signal;

function gate() {
  let open = (): void => {};
  const opened = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { opened, open: () => open() };
}

/** Work that says when it begins and ends when it is told to. */
function job() {
  const [begun, done] = [gate(), gate()];
  let running = false;
  const work = async (): Promise<void> => {
    running = true;
    begun.open();
    await done.opened;
    running = false;
  };
  return { work, begun: begun.opened, finish: done.open, isRunning: () => running };
}

describe('locks', () => {
  it('one that gives up its place opens the way for nobody', async () => {
    const locks = new Locks();
    const [a, c] = [job(), job()];
    const holder = locks.run('x', never, a.work);
    await a.begun;
    const waiter = new AbortController();
    const waiting = locks.run('x', waiter.signal, async () => {});
    waiter.abort(new Error('enough'));
    await expect(waiting).rejects.toThrow('enough');
    let overlapped = false;
    const third = locks.run('x', never, async () => {
      overlapped = a.isRunning();
      return c.work();
    });
    // Another key goes through meanwhile, asked for later than the third.
    await locks.run('y', never, async () => {});
    expect(c.isRunning()).toBe(false);
    a.finish();
    await c.begun;
    expect(overlapped).toBe(false);
    c.finish();
    await Promise.all([holder, third]);
  });

  it('the next gets its turn when the one before fails', async () => {
    const locks = new Locks();
    const failing = locks.run('x', never, async () => {
      throw new Error('broken');
    });
    const next = locks.run('x', never, async () => 'done');
    await expect(failing).rejects.toThrow('broken');
    expect(await next).toBe('done');
  });
});
