import { execFileSync } from 'node:child_process';
import { mkdir, truncate, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';
import { contextTokensOf, estimateVram } from '../../src/core/vram.js';
import { type GgufHeader, readGgufHeader } from '../../src/host/gguf.js';
import { parseGguf } from '../../src/host/ggufParse.js';
import { modelShape } from '../../src/host/ggufShape.js';
import { tinyModelBytes } from '../support/tinyModel.js';
import { type GgufSpec, ggufBytes, text, uint32, uint64 } from './ggufWriter.js';
import { cleanUp, temporaryFolder } from './support.js';

afterEach(cleanUp);

async function fileWith(bytes: Buffer, name = 'model.gguf'): Promise<string> {
  const path = join(await temporaryFolder(), name);
  await writeFile(path, bytes);
  return path;
}

async function headerOf(path: string): Promise<GgufHeader> {
  const header = await readGgufHeader(path);
  if ('unreadable' in header) throw new Error(header.unreadable);
  return header;
}

async function complaintAbout(path: string): Promise<string> {
  const header = await readGgufHeader(path);
  return 'unreadable' in header ? header.unreadable : `readable: ${header.architecture}`;
}

const llamaKeys = {
  'general.architecture': 'llama',
  'llama.block_count': 4,
  'llama.embedding_length': 64,
  'llama.attention.head_count': 4,
} as const;

describe('the header of a GGUF file', () => {
  it('is read from a real one, and gives the KV cache that llama-server allocates for it', async () => {
    const bytes = tinyModelBytes({ name: 'small one' });
    const header = await headerOf(await fileWith(bytes));
    expect(header).toMatchObject({
      architecture: 'llama',
      name: 'small one',
      fileBytes: bytes.length,
      shards: 1,
      blockCount: 2,
      contextLength: 4096,
      embeddingLength: 64,
      headCount: 4,
      headCountKv: 4,
      keyLength: null,
      valueLength: null,
      slidingWindow: null,
    });
    // 434 tokens; a block has 7 matrices and 2 norms; all f32. The tables come once in and once out.
    const table = 434 * 64 * 4;
    const block = (4 * 64 * 64 + 3 * 64 * 128 + 2 * 64) * 4;
    expect(header.tensorBytes).toBe(2 * table + 64 * 4 + 2 * block);
    expect(header.hostTensorBytes).toBe(table);
    expect(header.outputBytes).toBe(table);
    const shape = modelShape(header);
    if ('unknown' in shape) throw new Error(shape.unknown);
    // `-c 4000 -np 4`: "size = 2.00 MiB ( 1024 cells, 2 layers, 4/4 seqs)".
    const estimate = estimateVram({ ...shape, contextTokens: contextTokensOf(1000, 4), slots: 4 });
    expect(estimate.kvBytes).toBe(2 * 1024 * 1024);
    expect(estimate.weightsBytes).toBe(header.tensorBytes - table);
  });

  it('is read in version 2 too, with all that a KV cache depends on', async () => {
    const keys = {
      ...llamaKeys,
      'llama.attention.head_count_kv': { of: 'int32', values: [2, 0, 2, 1] },
      'llama.attention.key_length': 128,
      'llama.attention.value_length': { type: 'uint64', value: 64 },
      'llama.attention.sliding_window': 1024,
      'llama.attention.sliding_window_pattern': { of: 'bool', values: [1, 1, 0, 1] },
    } as const;
    const header = await headerOf(await fileWith(ggufBytes({ version: 2, keys })));
    expect(header).toMatchObject({
      headCountKv: [2, 0, 2, 1],
      keyLength: 128,
      valueLength: 64,
      slidingWindow: 1024,
      slidingWindowPattern: [1, 1, 0, 1],
    });
    expect(modelShape(header)).toMatchObject({
      layers: 4,
      kvHeads: [2, 0, 2, 1],
      keyLength: 128,
      window: { tokens: 1024, layers: [true, true, false, true], keyLength: 128, valueLength: 64 },
    });
  });

  it('takes numbers that are none for absent', async () => {
    const keys = {
      ...llamaKeys,
      'llama.block_count': { type: 'int32', value: -1 },
      'llama.context_length': 'long',
    } as const;
    const header = await headerOf(await fileWith(ggufBytes({ keys })));
    expect([header.blockCount, header.contextLength]).toEqual([null, null]);
    expect(modelShape(header)).toEqual({ unknown: expect.stringContaining('llama.block_count') });
  });

  it('counts quantized tensors by their blocks, and unknown ones as the rest of the file', async () => {
    const known = { name: 'a', shape: [512, 2], type: 12, bytes: 4 * 144 };
    const bytes = ggufBytes({ keys: llamaKeys, tensors: [known, { name: 'b', shape: [32], type: 1, bytes: 64 }] });
    expect((await headerOf(await fileWith(bytes))).tensorBytes).toBe(4 * 144 + 64);
    const unknown = ggufBytes({ keys: llamaKeys, tensors: [known, { name: 'b', shape: [7], type: 999, bytes: 64 }] });
    expect((await headerOf(await fileWith(unknown))).tensorBytes).toBe(4 * 144 + 64);
    const broken = ggufBytes({ keys: llamaKeys, tensors: [{ ...known, shape: [100] }] });
    expect(await complaintAbout(await fileWith(broken))).toMatch(/rows of broken blocks$/);
  });

  it('steps over a vocabulary that is longer than one read', async () => {
    const tokens = Array.from({ length: 150_000 }, (_, index) => `token ${index}`);
    const keys = { 'tokenizer.ggml.tokens': tokens, ...llamaKeys };
    expect(await headerOf(await fileWith(ggufBytes({ keys })))).toMatchObject({ blockCount: 4 });
  });
});

describe('a model in shards', () => {
  const shard = (number: number, keys: GgufSpec['keys'] = {}): Buffer =>
    ggufBytes({
      keys: { 'split.no': number, 'split.count': 3, ...keys },
      tensors: [{ name: number === 2 ? 'output.weight' : `blk.${number}.x`, shape: [8], type: 0, bytes: 32 }],
    });
  const write = async (
    numbers: readonly number[],
    name = (number: number) => `big-0000${number + 1}-of-00003.gguf`,
  ) => {
    const folder = await temporaryFolder();
    let fileBytes = 0;
    for (const number of numbers) {
      const bytes = shard(number, number === 0 ? llamaKeys : {});
      fileBytes += bytes.length;
      await writeFile(join(folder, name(number)), bytes);
    }
    return { path: join(folder, name(numbers[0] ?? 0)), fileBytes };
  };

  it('is one model: sizes are summed', async () => {
    const { path, fileBytes } = await write([0, 1, 2]);
    expect(await headerOf(path)).toMatchObject({ shards: 3, fileBytes, tensorBytes: 96, outputBytes: 32 });
  });

  it('names the shard that is missing, is no shard of it, or was given instead of the first', async () => {
    const { path } = await write([0, 1]);
    expect(await complaintAbout(path)).toMatch(/big-00003-of-00003\.gguf: there is no such file \(shard 3 of 3\)$/);
    await writeFile(path.replace('00001-of', '00003-of'), shard(1));
    expect(await complaintAbout(path)).toMatch(/big-00003-of-00003\.gguf: it is not shard 3 of 3$/);
    expect(await complaintAbout(path.replace('00001-of', '00002-of'))).toMatch(
      /it is shard 2 of 3; give the first one$/,
    );
    const renamed = await write([0], () => 'big.gguf');
    expect(await complaintAbout(renamed.path)).toMatch(/does not end in -00001-of-00003\.gguf$/);
  });
});

describe('what is no readable GGUF file', () => {
  it.each([
    [
      'another format',
      Buffer.from('PK\x03\x04 and more of a zip file'),
      /no GGUF file: it begins with the bytes 504b0304$/,
    ],
    ['an empty file', Buffer.alloc(0), /cut off: it ends after 0 bytes/],
    ['big-endian', Buffer.from('GGUF\0\0\0\x03aaaaaaaaaaaaaaaa', 'latin1'), /big-endian/],
    ['version 1', ggufBytes({ version: 1 }), /version 1; versions 2 and 3 are known$/],
    ['version 4', ggufBytes({ version: 4 }), /version 4;/],
    ['no architecture', ggufBytes({ keys: { 'general.name': 'x' } }), /names no architecture/],
    ['endless keys', ggufBytes({ claims: { keys: 2n ** 40n } }), /claims 1099511627776 keys/],
    ['endless tensors', ggufBytes({ claims: { tensors: 2n ** 40n } }), /claims 1099511627776 tensors/],
    ['numbers beyond any file', ggufBytes({ claims: { tensors: 2n ** 64n - 1n } }), /number no file can mean$/],
    ['endless layers', ggufBytes({ keys: { ...llamaKeys, 'llama.block_count': 2 ** 31 } }), /2147483648 layers/],
    ['endless shards', ggufBytes({ keys: { ...llamaKeys, 'split.count': 2 ** 31 } }), /2147483648 shards/],
    ['an odd alignment', ggufBytes({ keys: { ...llamaKeys, 'general.alignment': 33 } }), /alignment is 33/],
    ['alignment 0', ggufBytes({ keys: { ...llamaKeys, 'general.alignment': 0 } }), /alignment is 0/],
  ])('%s', async (_what, bytes, complaint) => {
    expect(await complaintAbout(await fileWith(bytes))).toMatch(complaint);
  });

  /** One key whose value is written by hand. */
  const oneKey = (...value: Buffer[]) => Buffer.concat([ggufBytes({ claims: { keys: 1n } }), text('k'), ...value]);
  /** One tensor whose description is written by hand. */
  const oneTensor = (...info: Buffer[]) =>
    Buffer.concat([ggufBytes({ claims: { tensors: 1n } }), text('t'), ...info, uint32(0), uint64(0)]);
  it.each([
    ['a string longer than the file', oneKey(uint32(8), uint64(2 ** 50)), /cut off/],
    ['an array longer than the file', oneKey(uint32(9), uint32(12), uint64(2 ** 52)), /cut off/],
    ['strings more than the file', oneKey(uint32(9), uint32(8), uint64(2 ** 52)), /cut off/],
    ['an array of arrays', oneKey(uint32(9), uint32(9), uint64(1)), /unknown type 9$/],
    ['a value of no known type', oneKey(uint32(77)), /unknown type 77$/],
    ['a name of megabytes', Buffer.concat([ggufBytes({ claims: { keys: 1n } }), uint64(2 ** 22)]), /a name of 4194304/],
    [
      'a key twice',
      Buffer.concat([ggufBytes({ claims: { keys: 2n } }), text('k'), uint32(7), Buffer.alloc(1), text('k')]),
      /a key twice/,
    ],
    ['ninety dimensions', oneTensor(uint32(90)), /90 dimensions$/],
    [
      'a tensor beyond all sizes',
      oneTensor(uint32(4), ...Array.from({ length: 4 }, () => uint64(2 ** 52))),
      /no file can hold$/,
    ],
    [
      'a tensor beyond the file',
      oneTensor(uint32(1), uint64(2 ** 40)),
      /cut off: it has \d+ bytes, its tensors need 43\d+$/,
    ],
  ])('%s', async (_what, bytes, complaint) => {
    expect(await complaintAbout(await fileWith(bytes))).toMatch(complaint);
  });

  it('a file cut anywhere, by a download that broke off', async () => {
    const whole = tinyModelBytes();
    for (let length = 0; length < 4096; length += 1) {
      expect(parseGguf(whole.subarray(0, length), length)).toEqual({
        unreadable: expect.stringContaining('it is cut off'),
      });
      expect(parseGguf(whole.subarray(0, length), whole.length)).toBe('needs_more');
    }
    const path = await fileWith(whole);
    await truncate(path, whole.length - 1);
    expect(await complaintAbout(path)).toMatch(/cut off: it has \d+ bytes, its tensors need \d+$/);
  });

  it('any other bytes: an answer comes, and nothing is thrown', () => {
    const whole = tinyModelBytes();
    const changes = fc.array(fc.tuple(fc.nat(20_000), fc.nat(255)), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(changes, (pairs) => {
        const bytes = Buffer.from(whole);
        for (const [at, value] of pairs) bytes[at] = value;
        expect(['object', 'string']).toContain(typeof parseGguf(bytes, bytes.length));
      }),
      { numRuns: 300 },
    );
  });

  it('a header without end: reading stops at 64 MiB', async () => {
    const path = await fileWith(oneKey(uint32(8), uint64(2 ** 33)));
    await truncate(path, 2 ** 34);
    expect(await complaintAbout(path)).toMatch(/its header is longer than 64 MiB$/);
  });

  it('a folder, a pipe that nobody writes to, nothing at all', async () => {
    const folder = await temporaryFolder();
    await mkdir(join(folder, 'folder'));
    execFileSync('/bin/sh', ['-c', 'mkfifo "$0"', join(folder, 'pipe')]);
    expect(await complaintAbout(join(folder, 'folder'))).toMatch(/it is not a regular file$/);
    expect(await complaintAbout(join(folder, 'pipe'))).toMatch(/it is not a regular file$/);
    expect(await complaintAbout(join(folder, 'none.gguf'))).toMatch(/there is no such file$/);
    expect(await complaintAbout('a\0b')).toMatch(/cannot be read/);
  });
});

describe('the layers that cache', () => {
  const shapeOf = async (keys: GgufSpec['keys']) => {
    const shape = modelShape(await headerOf(await fileWith(ggufBytes({ keys: keys ?? {} }))));
    if ('unknown' in shape) throw new Error(shape.unknown);
    return shape;
  };

  it('leave out recurrent layers and those that share the cache of others', async () => {
    expect((await shapeOf({ ...llamaKeys, 'llama.full_attention_interval': 2 })).kvHeads).toEqual([0, 4, 0, 4]);
    expect((await shapeOf({ ...llamaKeys, 'llama.attention.shared_kv_layers': 3 })).kvHeads).toEqual([4, 0, 0, 0]);
  });

  it('have a window where llama.cpp gives them one, not where a file only states one', async () => {
    expect((await shapeOf({ ...llamaKeys, 'llama.attention.sliding_window': 512 })).window).toBeUndefined();
    const gemma = {
      'general.architecture': 'gemma2',
      'gemma2.block_count': 3,
      'gemma2.embedding_length': 64,
      'gemma2.attention.head_count': 4,
      'gemma2.attention.sliding_window': 4096,
    };
    expect((await shapeOf(gemma)).window).toMatchObject({ tokens: 4096, layers: [true, false, true], keyLength: 16 });
  });

  it('cache no value of their own with latent attention', async () => {
    const shape = await shapeOf({
      ...llamaKeys,
      'llama.attention.key_length': 576,
      'llama.attention.value_length': 512,
      'llama.attention.key_length_mla': 192,
    });
    expect(shape).toMatchObject({ keyLength: 576, valueLength: 0 });
  });
});
