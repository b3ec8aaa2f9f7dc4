// Writes a real, very small llama model: any GGUF engine loads it in milliseconds and streams readable nonsense.
import { randomUUID } from 'node:crypto';
import { rename, writeFile } from 'node:fs/promises';
import { random } from './random.js';

export interface TinyModelOptions {
  /** Other weights for another seed: two seeds are two models that answer differently. */
  seed?: number;
  name?: string;
}

const contextLength = 4096;
const width = 64;
const headCount = 4;
const feedForwardWidth = 128;
const blockCount = 2;
const alignment = 32;

// --- Vocabulary ---

const tokenType = { normal: 1, unknown: 2, control: 3, byte: 6 } as const;

interface Token {
  text: string;
  score: number;
  type: number;
  /** Whether the model ever generates it. */
  isGenerated: boolean;
}

const consonants = ['k', 'l', 'm', 'n', 'p', 'r', 's', 't', 'v', 'd'];
const endings = ['no', 'ra', 've', 'mi', 'lo'];
const characters = '▁abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.,!?\'":;()-_';

/** 100 words like "▁kino": every consonant with two vowels and five endings. */
function words(): string[] {
  return consonants.flatMap((first) =>
    ['i', 'o'].flatMap((vowel) => endings.map((ending) => `▁${first}${vowel}${ending}`)),
  );
}

function vocabulary(): Token[] {
  const byteName = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
  const silent = (text: string, type: number, score = 0): Token => ({ text, score, type, isGenerated: false });
  return [
    silent('<unk>', tokenType.unknown),
    silent('<s>', tokenType.control),
    silent('</s>', tokenType.control),
    ...Array.from({ length: 256 }, (_, byte) => silent(byteName(byte), tokenType.byte)),
    ...Array.from(characters, (text, rank) => silent(text, tokenType.normal, -1000 - rank)),
    ...words().map((text, rank) => ({ text, score: -1 - rank, type: tokenType.normal, isGenerated: true })),
  ];
}

// --- Weights ---

interface Tensor {
  name: string;
  /** Row length first, as GGUF has it. */
  shape: [number] | [number, number];
  values: Float32Array;
}

// Column 0 of the hidden state carries one constant from the embedding to the output: no block writes to it. A negative
// weight there keeps a token from ever being sampled, whatever the sampler's settings, so text stays readable.
const constantColumn = 0;
const constantEmbedding = 4;
const silencingWeight = -32;

function tensors(tokens: readonly Token[], seed: number): Tensor[] {
  const next = random(seed);
  const uniform = (name: string, columns: number, rows: number, deviation: number): Tensor => {
    const half = deviation * Math.sqrt(3);
    return {
      name,
      shape: [columns, rows],
      values: Float32Array.from({ length: columns * rows }, () => (next() * 2 - 1) * half),
    };
  };
  const ones = (name: string): Tensor => ({ name, shape: [width], values: new Float32Array(width).fill(1) });
  const withoutConstantRow = (tensor: Tensor): Tensor => {
    const columns = tensor.shape[0];
    tensor.values.fill(0, constantColumn * columns, (constantColumn + 1) * columns);
    return tensor;
  };

  const embedding = uniform('token_embd.weight', width, tokens.length, 1);
  const output = uniform('output.weight', width, tokens.length, 0.25);
  for (const [index, token] of tokens.entries()) {
    const row = index * width;
    embedding.values[row + constantColumn] = constantEmbedding;
    if (!token.isGenerated) output.values.fill(0, row, row + width);
    output.values[row + constantColumn] = token.isGenerated ? 0 : silencingWeight;
  }
  const blocks = Array.from({ length: blockCount }, (_, block) => [
    ones(`blk.${block}.attn_norm.weight`),
    uniform(`blk.${block}.attn_q.weight`, width, width, 0.3),
    uniform(`blk.${block}.attn_k.weight`, width, width, 0.3),
    uniform(`blk.${block}.attn_v.weight`, width, width, 0.35),
    withoutConstantRow(uniform(`blk.${block}.attn_output.weight`, width, width, 0.35)),
    ones(`blk.${block}.ffn_norm.weight`),
    uniform(`blk.${block}.ffn_gate.weight`, width, feedForwardWidth, 0.15),
    uniform(`blk.${block}.ffn_up.weight`, width, feedForwardWidth, 0.15),
    withoutConstantRow(uniform(`blk.${block}.ffn_down.weight`, feedForwardWidth, width, 0.15)),
  ]);
  return [embedding, ones('output_norm.weight'), output, ...blocks.flat()];
}

// --- GGUF v3 ---

const ggufType = { uint32: 4, int32: 5, float32: 6, string: 8, array: 9 } as const;
const tensorTypeF32 = 0;

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function uint64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function float32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function text(value: string): Buffer {
  const bytes = Buffer.from(value);
  return Buffer.concat([uint64(bytes.length), bytes]);
}

function list(type: number, values: readonly Buffer[]): Buffer {
  return Buffer.concat([uint32(type), uint64(values.length), ...values]);
}

function padding(byteLength: number): Buffer {
  return Buffer.alloc((alignment - (byteLength % alignment)) % alignment);
}

function metadata(tokens: readonly Token[], name: string): Buffer[] {
  const integer = (key: string, value: number) => Buffer.concat([text(key), uint32(ggufType.uint32), uint32(value)]);
  const string = (key: string, value: string) => Buffer.concat([text(key), uint32(ggufType.string), text(value)]);
  const array = (key: string, type: number, values: readonly Buffer[]) =>
    Buffer.concat([text(key), uint32(ggufType.array), list(type, values)]);
  return [
    string('general.architecture', 'llama'),
    string('general.name', name),
    integer('general.file_type', 0),
    integer('general.alignment', alignment),
    integer('llama.context_length', contextLength),
    integer('llama.embedding_length', width),
    integer('llama.block_count', blockCount),
    integer('llama.feed_forward_length', feedForwardWidth),
    integer('llama.attention.head_count', headCount),
    integer('llama.attention.head_count_kv', headCount),
    Buffer.concat([text('llama.attention.layer_norm_rms_epsilon'), uint32(ggufType.float32), float32(1e-5)]),
    integer('llama.rope.dimension_count', width / headCount),
    integer('llama.vocab_size', tokens.length),
    string('tokenizer.ggml.model', 'llama'),
    array(
      'tokenizer.ggml.tokens',
      ggufType.string,
      tokens.map((token) => text(token.text)),
    ),
    array(
      'tokenizer.ggml.scores',
      ggufType.float32,
      tokens.map((token) => float32(token.score)),
    ),
    array(
      'tokenizer.ggml.token_type',
      ggufType.int32,
      tokens.map((token) => uint32(token.type)),
    ),
    integer('tokenizer.ggml.unknown_token_id', 0),
    integer('tokenizer.ggml.bos_token_id', 1),
    integer('tokenizer.ggml.eos_token_id', 2),
  ];
}

function littleEndian(values: Float32Array): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (const [index, value] of values.entries()) bytes.writeFloatLE(value, index * 4);
  return bytes;
}

/** The model's file: the same bytes for the same options, everywhere. */
export function tinyModelBytes({ seed = 1, name = 'tiny' }: TinyModelOptions = {}): Buffer {
  const tokens = vocabulary();
  const entries = metadata(tokens, name);
  const weights = tensors(tokens, seed);
  const infos: Buffer[] = [];
  const data: Buffer[] = [];
  let offset = 0;
  for (const { name: tensorName, shape, values } of weights) {
    infos.push(text(tensorName), uint32(shape.length), ...shape.map(uint64), uint32(tensorTypeF32), uint64(offset));
    const bytes = littleEndian(values);
    const gap = padding(bytes.length);
    data.push(bytes, gap);
    offset += bytes.length + gap.length;
  }
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    uint32(3),
    uint64(weights.length),
    uint64(entries.length),
    ...entries,
    ...infos,
  ]);
  return Buffer.concat([head, padding(head.length), ...data]);
}

/** Renamed into place: an engine that has the old file mapped keeps it, and no reader sees a half-written one. */
export async function writeTinyModel(path: string, options: TinyModelOptions = {}): Promise<void> {
  const fresh = `${path}.${randomUUID()}`;
  await writeFile(fresh, tinyModelBytes(options));
  await rename(fresh, path);
}
