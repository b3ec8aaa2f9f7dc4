/** The life of the NVML helper itself. */
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { NvmlClient, type NvmlClientOptions, type NvmlStatus } from '../../src/host/gpu/nvmlClient.js';
import { fakeNvml, hasCompiler } from './gpuSupport.js';
import { cleanUp, fixture, later } from './support.js';

afterEach(cleanUp);

const helperFile = join('dist', 'host', 'gpu', 'nvmlHelper.js');

function clientOf(options: Partial<NvmlClientOptions>) {
  const statuses: NvmlStatus[] = [];
  let polls = 0;
  const client = new NvmlClient({
    helperFile,
    intervalMs: 30,
    restart: { baseMs: 20, capMs: 50, stableMs: 60_000, maxFailures: Number.POSITIVE_INFINITY },
    onPoll: () => {
      polls += 1;
    },
    onXid: () => {},
    onStatus: (status) => statuses.push(status),
    ...options,
  });
  later(() => client.close());
  return { client, statuses, polls: () => polls };
}

describe('the NVML helper', () => {
  it('is given up quietly where there is no library, or no helper', async () => {
    const { client } = clientOf({ libraryPath: '/nonexistent/libnvidia-ml.so.1' });
    client.start();
    await expect.poll(() => client.status.state).toBe('unavailable');
    expect(client.status).toMatchObject({
      starts: 1,
      reason: expect.stringContaining('/nonexistent/libnvidia-ml.so.1'),
    });
    const unbuilt = clientOf({ helperFile: '/nonexistent/helper.js' });
    unbuilt.client.start();
    expect(unbuilt.client.status).toMatchObject({ state: 'unavailable', starts: 0 });
  });

  it('is started again when it crashes, with the reason at hand', async () => {
    const { client, statuses } = clientOf({ helperFile: fixture('nvmlCrash.mjs') });
    client.start();
    await expect.poll(() => client.status.starts).toBeGreaterThanOrEqual(3);
    expect(statuses[0]).toMatchObject({
      state: 'failing',
      reason: expect.stringContaining('(SIGSEGV): about to crash'),
    });
    await client.close();
    expect(client.status.state).toBe('closed');
  });

  it.skipIf(!hasCompiler)('hangs, is killed, and another one takes over (needs a C compiler)', async () => {
    const nvml = await fakeNvml(1);
    const { client, statuses, polls } = clientOf({ libraryPath: nvml.library, silenceMs: 400, firstSilenceMs: 3000 });
    client.start();
    await expect.poll(() => client.status.state).toBe('up');
    await nvml.hang(true);
    await expect.poll(() => client.status).toMatchObject({ state: 'hung', reason: expect.stringContaining('0.4 s') });
    await nvml.hang(false);
    const before = polls();
    await expect.poll(() => client.status.state).toBe('up');
    await expect.poll(polls).toBeGreaterThan(before);
    expect(client.status.starts).toBeGreaterThanOrEqual(2);
    const states = statuses.map((status) => status.state);
    expect(states.slice(0, 2)).toEqual(['up', 'hung']);
    expect(states.at(-1)).toBe('up');
  });

  it.skipIf(!hasCompiler)(
    'ends by itself when its parent is gone, also out of a hang (needs a C compiler)',
    async () => {
      const nvml = await fakeNvml(1);
      const child = fork(helperFile, ['30'], {
        execArgv: [],
        env: { ...process.env, LLAMA_ORCH_NVML_LIBRARY: nvml.library },
        stdio: 'ignore',
      });
      later(() => child.kill('SIGKILL'));
      const [message] = await once(child, 'message');
      expect(message).toMatchObject({ type: 'poll', poll: { ok: true } });
      await nvml.hang(true);
      // Two polls' worth of silence: the call is in the driver now.
      let heard = 0;
      child.on('message', () => {
        heard += 1;
      });
      let before = -1;
      await expect
        .poll(
          () => {
            const quiet = before === heard;
            before = heard;
            return quiet;
          },
          { interval: 200 },
        )
        .toBe(true);
      const exited = once(child, 'exit', { signal: AbortSignal.timeout(10_000) });
      child.disconnect();
      expect((await exited)[1]).toBe('SIGKILL');
    },
  );
});
