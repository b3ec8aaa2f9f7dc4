/** What is refused before an engine is started, because its model cannot fit or cannot be read. */
import { chmod, mkdtemp, rm, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { changesMemory, firstMisfit, needOf } from '../../src/services/supervision/memory.js';
import { ggufHead, type TensorSpec } from '../host/ggufWriter.js';
import { LLAMA_SERVER } from '../support/fakeTools.js';
import { gql } from '../support/graphql.js';
import { tinyModelBytes } from '../support/tinyModel.js';
import { startWorld, type World } from '../support/world.js';

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
let folder: string;
let model: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'llama-orch-memory-'));
  model = join(folder, 'tiny.gguf');
  await writeFile(model, tinyModelBytes());
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const device = (freeBytes: number) => ({ uuid: 'GPU-a', label: 'GPU 0 (Small)', freeBytes, obstacle: null });
const plan = (over: { ratios?: number[] } = {}) => ({
  kind: 'gguf' as const,
  path: model,
  contextPerSlot: 1000,
  slots: 4,
  ratios: null,
  ...over,
});

describe('what a replica needs', () => {
  it('follows from the file, the context and the slots, and says how', async () => {
    const needs = await needOf(plan(), [device(0)]);
    // 2 MiB of KV cache are what llama-server itself reports for this model, context and slots.
    expect(needs).toMatchObject([{ kvBytes: 2 * MIB, arithmetic: expect.stringMatching(/weights \+ .*KV cache.*=/) }]);
  });

  it('is divided among the devices by the ratios of the pool', async () => {
    const needs = await needOf(plan({ ratios: [3, 1] }), [device(0), { ...device(0), uuid: 'GPU-b' }]);
    expect(needs).toHaveLength(2);
  });

  it('is not guessed where nothing is known', async () => {
    expect(await needOf(null, [device(0)])).toEqual([]);
    expect(await needOf(plan(), [])).toEqual([]);
    expect(changesMemory(['--flash-attn', 'on', '-t', '4'])).toBe(false);
    for (const flag of ['-ngl', '--cache-type-k=q8_0', '-c', '-ctv', '--n-gpu-layers']) {
      expect(changesMemory([flag, '1'])).toBe(true);
    }
  });

  it('names the device on which it does not fit', async () => {
    const needs = await needOf({ kind: 'claimed', bytes: 8 * MIB }, [device(4 * MIB)]);
    if ('code' in needs) throw new Error(needs.message);
    expect(firstMisfit(needs, [device(8 * MIB)])).toBeNull();
    expect(firstMisfit(needs, [device(4 * MIB)])).toMatchObject({
      ...{ code: 'VRAM_INSUFFICIENT', message: expect.stringContaining('GPU 0 (Small) has 4 MiB') },
    });
  });
});

describe('a pool', () => {
  let world: World;
  afterEach(async () => {
    await world[Symbol.asyncDispose]();
  });

  /** The binary is never started: what stands in the way is found before. */
  const config = (file: string, memoryBytes: number): string =>
    JSON.stringify({
      gpu: { mode: 'simulated', devices: [{ name: 'Small', memory_bytes: memoryBytes }] },
      pools: [
        {
          ...{ id: 'p', engine: 'llamacpp', model: `file:${file}`, ctx: 1024, devices: [0] },
          provisioning: { mode: 'binary', binary: { url: pathToFileURL(process.execPath).href } },
        },
      ],
    });

  const whyNot = async (): Promise<{ code: string; message: string; fix: string }[]> => {
    const { data } = await gql(world.url, '{ pools { notReadyBecause { code message fix } } }');
    return data.pools[0].notReadyBecause;
  };

  it('does not start what its GPU cannot hold, and shows the arithmetic', async () => {
    world = await startWorld({ config: config(model, 100 * MIB), expectNotReady: true });
    await expect.poll(async () => (await whyNot())[0]?.code).toBe('VRAM_INSUFFICIENT');
    const [reason] = await whyNot();
    expect(reason?.message).toMatch(/GPU 0 \(Small\) has 0.1 GiB of memory free.*weights \+ .*KV cache/);
    expect(reason?.fix).toContain('smaller model');
  });

  /** A model of six layers; a file with holes, so it takes no room. */
  async function giant(name: string, tensors: readonly TensorSpec[]): Promise<string> {
    const keys = { 'llama.block_count': 6, 'llama.embedding_length': 64, 'llama.attention.head_count': 4 };
    const { head, fileBytes } = ggufHead({ keys: { 'general.architecture': 'llama', ...keys }, tensors });
    const path = join(folder, name);
    await writeFile(path, head);
    await truncate(path, fileBytes);
    return path;
  }

  const tensor = (name: string, bytes: number) => ({ name, shape: [64, bytes / 256], type: 0, bytes });

  it('does not start what host memory cannot hold beside the GPU', async () => {
    // More than any host has, and most of it stays there.
    const tensors = [tensor('token_embd.weight', 4096 * GIB), tensor('output.weight', 256 * MIB)];
    const file = await giant('host.gguf', tensors);
    world = await startWorld({ config: config(file, 24 * GIB), expectNotReady: true });
    await expect.poll(async () => (await whyNot())[0]?.code).toBe('HOST_MEMORY_INSUFFICIENT');
    const [reason] = await whyNot();
    expect(reason?.message).toMatch(/of memory available; the engine needs 4096\.\d GiB beside its GPU memory/);
    expect(reason?.fix).toContain('smaller model');
    const started =
      "SELECT id FROM replicas WHERE pid IS NOT NULL OR state NOT IN ('PROVISIONING', 'BACKING_OFF', 'ABSENT')";
    expect(await world.database.query(started)).toEqual([]);
    const again = "SELECT seq FROM pool_events WHERE kind = 'replica_preload' AND message LIKE 'preload refused%'";
    await expect.poll(async () => (await world.database.query(again)).length).toBeGreaterThan(1);
  });

  it.each([
    ['1:1, which is too much for the smaller one', [1, 1], 'VRAM_INSUFFICIENT'],
    ['2:1, as they are', [2, 1], null],
  ])('is split over unequal GPUs by its ratios: %s', async (_how, ratios, code) => {
    const file = await giant('split.gguf', [tensor('blk.0.ffn_up.weight', 6 * GIB)]);
    const program = join(folder, 'llama-server');
    await writeFile(program, LLAMA_SERVER);
    await chmod(program, 0o755);
    const { gpu, pools } = JSON.parse(config(file, 6 * GIB));
    const provisioning = { mode: 'binary', binary: { url: pathToFileURL(program).href } };
    const split = {
      gpu: {
        ...gpu,
        devices: [
          { name: 'Big', memory_bytes: 6 * GIB },
          { name: 'Small', memory_bytes: 2 * GIB },
        ],
      },
      pools: [{ ...pools[0], devices: [0, 1], tensor_split: ratios, provisioning }],
    };
    world = await startWorld({ config: JSON.stringify(split), expectNotReady: true });
    const stands = async () => {
      const { data } = await gql(world.url, '{ pools { ready notReadyBecause { code message } } }');
      const [{ ready, notReadyBecause }] = data.pools;
      return ready ? null : notReadyBecause.find((reason: { code: string }) => reason.code !== 'LOADING');
    };
    if (code === null) await expect.poll(stands).toBeNull();
    else await expect.poll(stands).toMatchObject({ code, message: expect.stringContaining('GPU 1 (Small)') });
  });

  it('does not start a model file that is not whole', async () => {
    const cut = join(folder, 'cut.gguf');
    await writeFile(cut, tinyModelBytes().subarray(0, -1));
    world = await startWorld({ config: config(cut, 10_000 * MIB), expectNotReady: true });
    await expect.poll(async () => (await whyNot())[0]?.code).toBe('MODEL_UNREADABLE');
    expect((await whyNot())[0]?.message).toContain(cut);
  });
});
