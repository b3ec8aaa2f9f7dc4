import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { NvidiaSmi, type NvidiaSmiOptions } from '../../src/host/gpu/nvidiaSmi.js';
import { parseSmiOutput, pollOfRun } from '../../src/host/gpu/smiOutput.js';
import { type FakeNvidiaSmi, fakeApp, fakeGpu, fakeNvidiaSmi, MIB } from './gpuSupport.js';
import { cleanUp, later, temporaryFolder } from './support.js';

afterEach(cleanUp);

function client(fake: FakeNvidiaSmi, options: NvidiaSmiOptions = {}): NvidiaSmi {
  const smi = new NvidiaSmi({ file: fake.file, ...options });
  later(() => smi.close());
  return smi;
}

const reading = {
  uuid: 'GPU-00000000-fake',
  index: 0,
  name: 'NVIDIA RTX 3090, Fake',
  memoryTotalBytes: 24_576 * MIB,
  memoryFreeBytes: 20_000 * MIB,
  memoryUsedBytes: 4200 * MIB,
  utilizationPercent: 37,
  temperatureC: 55,
  eccUncorrected: 0,
  powerWatts: 61.23,
  computeCapability: '8.6',
  migEnabled: false,
  processes: [],
};

describe('nvidia-smi', () => {
  it('is asked for everything in one run once it is known what it has', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)] });
    const smi = client(fake);
    const expected = { ok: true, samples: [reading], lost: [], complete: true };
    expect(await smi.poll()).toEqual(expected);
    const before = (await fake.calls()).length;
    expect(await smi.poll()).toEqual(expected);
    // The GPUs, and what runs on them.
    expect(await fake.calls()).toHaveLength(before + 2);
  });

  it('tells what runs on each GPU, and how much of its memory it takes where the driver says so', async () => {
    const uuid = 'GPU-00000000-fake';
    const broken = [
      { pid: '0', gpu_uuid: uuid },
      { pid: '7', gpu_uuid: 'x' },
      { pid: '-1; rm', gpu_uuid: uuid },
    ];
    const fake = await fakeNvidiaSmi({
      gpus: [fakeGpu(0), fakeGpu(1)],
      apps: [fakeApp(0, 41, 5000), fakeApp(0, 42, null), ...broken, fakeApp(0, 43, 99_999_999)],
    });
    const processes = [
      { pid: 41, usedBytes: 5000 * MIB },
      { pid: 42, usedBytes: null },
      // More than the GPU has.
      { pid: 43, usedBytes: null },
    ];
    expect(await client(fake).poll()).toMatchObject({ samples: [{ processes }, { processes: [] }] });
    await fake.set({ gpus: [fakeGpu(0)], apps: null });
    expect(await client(fake).poll()).toMatchObject({ ok: true, samples: [{ processes: null }] });
  });

  it('is asked only for the fields that an old driver knows, and probed only once', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)], unknownFields: ['compute_cap', 'mig.mode.current'] });
    const smi = client(fake);
    expect(await smi.poll()).toMatchObject({
      samples: [{ ...reading, computeCapability: null, migEnabled: null }],
    });
    const before = (await fake.calls()).length;
    await smi.poll();
    const later = (await fake.calls()).slice(before);
    expect(later).toHaveLength(2);
    expect(later[0]).toContain('power.draw,ecc.errors.uncorrected.volatile.total,name');
  });

  it('answers callers of the same moment from one process', async () => {
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0)], waitFor: 'go' });
    const smi = client(fake, { optionalFields: false });
    const polls = [smi.poll(), smi.poll(), smi.poll()];
    await expect.poll(() => fake.calls()).toHaveLength(1);
    polls.push(smi.poll());
    await writeFile(join(fake.folder, 'go'), '');
    for (const poll of await Promise.all(polls)) expect(poll).toMatchObject({ ok: true, samples: [{ index: 0 }] });
    expect(await fake.calls()).toHaveLength(1);
  });

  it('is killed at its deadline when it hangs, and works again afterwards', async () => {
    const fake = await fakeNvidiaSmi({ hang: true });
    const hung = client(fake, { timeoutMs: 300, optionalFields: false });
    expect(await hung.poll()).toMatchObject({ ok: false, message: expect.stringContaining('did not answer') });
    await fake.set({ gpus: [fakeGpu(0)] });
    const smi = client(fake, { optionalFields: false });
    expect(await smi.poll()).toMatchObject({ ok: true });
  });

  it('tells a lost GPU from one that does not know a quantity', async () => {
    const lost = { ...fakeGpu(1), 'memory.used': '[GPU is lost]', 'temperature.gpu': '[Unknown Error]' };
    const unsupported = { ...fakeGpu(2), 'utilization.gpu': '[N/A]', 'temperature.gpu': '[Not Supported]' };
    const fake = await fakeNvidiaSmi({ gpus: [fakeGpu(0), lost, unsupported], newline: '\r\n' });
    expect(await client(fake).poll()).toMatchObject({
      ok: true,
      complete: true,
      samples: [reading, { index: 2, utilizationPercent: null, temperatureC: null, memoryUsedBytes: 4200 * MIB }],
      lost: [{ uuid: 'GPU-00000001-fake', index: 1, reason: expect.stringContaining('lost') }],
    });
  });

  it.each([
    ['garbage', { print: '\u0000\u001b[31m,,,,,,,,,,\n%%%\n' }, 'lists no usable GPU', false],
    ['nothing', {}, 'printed nothing', false],
    [
      'an error',
      { print: "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n", exitCode: 9 },
      'code 9',
      true,
    ],
    [
      'a version mismatch',
      { print: 'Failed to initialize NVML: Driver/library version mismatch\n', exitCode: 18 },
      'version mismatch',
      true,
    ],
    ['far too much', { print: 'x'.repeat(400_000) }, 'far more', false],
  ])('that prints %s is a failed poll', async (_name, behaviour, message, driverGone) => {
    const fake = await fakeNvidiaSmi(behaviour);
    const poll = await client(fake, { optionalFields: false }).poll();
    expect(poll).toEqual({ ok: false, message: expect.stringContaining(message), fix: expect.any(String), driverGone });
  });

  it('that is missing or cannot be run is a failed poll', async () => {
    const folder = await temporaryFolder();
    const missing = await new NvidiaSmi({ file: join(folder, 'none') }).poll();
    expect(missing).toMatchObject({ ok: false, message: expect.stringContaining('not installed') });
    await writeFile(join(folder, 'plain'), '', { mode: 0o644 });
    const notRunnable = await new NvidiaSmi({ file: join(folder, 'plain') }).poll();
    expect(notRunnable).toMatchObject({ ok: false, message: expect.stringContaining('could not be started') });
  });

  it('ends with its owner', async () => {
    const fake = await fakeNvidiaSmi({ hang: true });
    const smi = client(fake, { optionalFields: false });
    const poll = smi.poll();
    await expect.poll(() => fake.calls()).toHaveLength(1);
    smi.close();
    expect(await poll).toMatchObject({ ok: false });
    expect(await smi.poll()).toMatchObject({ ok: false, message: expect.stringContaining('closed') });
  });
});

describe('output of nvidia-smi', () => {
  const fields = ['index', 'uuid', 'memory.total', 'name'];

  it('keeps the GPUs among warnings, and a name with commas whole', () => {
    const output = `WARNING: infoROM is corrupted at gpu 0000:02:00.0
0, GPU-11111111-2222, 24576, A, B
1, GPU-11111111-2222, 99, the same again
x, GPU-22222222-3333, 24576, C
2, gpu, 24576, D
3, [Unknown Error], [N/A], [N/A]
4, GPU-44444444-5555, 1e9, E
`;
    expect(parseSmiOutput(output, fields)).toMatchObject({
      samples: [
        { uuid: 'GPU-11111111-2222', index: 0, name: 'A, B', memoryTotalBytes: 24_576 * MIB },
        { uuid: 'GPU-44444444-5555', index: 4, name: 'E', memoryTotalBytes: null },
      ],
      lost: [{ uuid: null, index: 3 }],
    });
  });

  it('takes a list that broke off for incomplete unless it names the dead GPU', () => {
    const output = '0, GPU-11111111-2222, 24576, A\n';
    const run = { failure: null, exitCode: 255, output };
    expect(pollOfRun(run, fields)).toMatchObject({ ok: true, complete: false });
    const named = `${output}Unable to determine the device handle for GPU0000:3B:00.0: Unknown Error\n`;
    expect(pollOfRun({ ...run, output: named }, fields)).toMatchObject({ ok: true, complete: true });
    const none = { failure: null, exitCode: 6, output: 'No devices were found\n' };
    expect(pollOfRun(none, fields)).toEqual({ ok: true, samples: [], lost: [], complete: true });
  });
});
