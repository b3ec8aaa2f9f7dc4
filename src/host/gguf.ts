/** What a GGUF model file says of itself, read from its header alone: llama.cpp's own file or set of shards. */
import { constants } from 'node:fs';
import { type FileHandle, open } from 'node:fs/promises';
import { delay } from '../runtime/wait.js';
import { type GgufMetadata, type GgufStart, type GgufTensors, parseGguf } from './ggufParse.js';

type Counts = number | readonly number[];

export interface GgufHeader {
  readonly architecture: string;
  readonly name: string | null;
  /** All shards together, as are the tensors. */
  readonly fileBytes: number;
  readonly shards: number;
  readonly tensorBytes: number;
  /** Tensors that stay in host memory even when every layer is on a GPU. */
  readonly hostTensorBytes: number;
  /** The output matrix. */
  readonly outputBytes: number;
  readonly blockCount: number | null;
  readonly contextLength: number | null;
  readonly embeddingLength: number | null;
  /** One number for all layers, or one per layer. */
  readonly headCount: Counts | null;
  readonly headCountKv: Counts | null;
  readonly keyLength: number | null;
  readonly valueLength: number | null;
  /** Latent attention (MLA): what is cached as a key holds the value too. */
  readonly latentAttention: boolean;
  /** Tokens that layers with a sliding window look back. */
  readonly slidingWindow: number | null;
  /** Every how many layers one looks back without bound; or per layer 1 (window) or 0 (without bound). */
  readonly slidingWindowPattern: Counts | null;
  readonly windowKeyLength: number | null;
  readonly windowValueLength: number | null;
  /** Every how many layers one has attention; the others are recurrent. */
  readonly fullAttentionInterval: number | null;
  /** So many of the last layers use the KV cache of earlier ones. */
  readonly sharedKvLayers: number;
}

export interface Unreadable {
  /** `path: what is wrong with it`. */
  readonly unreadable: string;
}

const MIB = 1024 * 1024;
/** For all shards of a model together. The largest vocabularies take about 20 MiB. */
const MAX_HEADER_BYTES = 64 * MIB;
const FIRST_READ_BYTES = MIB;
const MAX_SHARDS = 1000;
/** llama.cpp itself stops at 512. */
const MAX_LAYERS = 1024;
/** A disk that sleeps or a slow network share; beyond it the share hangs. */
const DEADLINE_MS = 30_000;

interface File {
  readonly start: GgufStart;
  readonly fileBytes: number;
}

/** Reads the headers of all shards, at most 64 MiB and 30 s in all. Never rejects. */
export async function readGgufHeader(path: string): Promise<GgufHeader | Unreadable> {
  const over = new AbortController();
  const late = delay(DEADLINE_MS, over.signal).then(() => ({
    unreadable: `${path}: reading its header took longer than ${DEADLINE_MS / 1000} s`,
  }));
  try {
    return await Promise.race([readModel(path, over.signal), late]);
  } finally {
    // A read that hangs cannot be called back; when it returns, it sees this and closes its file.
    over.abort();
  }
}

async function readModel(path: string, signal: AbortSignal): Promise<GgufHeader | Unreadable> {
  const budget = { leftBytes: MAX_HEADER_BYTES };
  const first = await readFile(path, budget, signal);
  if ('unreadable' in first) return first;
  const others = shardPaths(path, first.start.metadata);
  if ('unreadable' in others) return { unreadable: `${path}: ${others.unreadable}` };
  let fileBytes = first.fileBytes;
  const tensors = [first.start.tensors];
  for (const [index, shard] of others.paths.entries()) {
    const next = await readFile(shard, budget, signal);
    const which = `shard ${index + 2} of ${others.paths.length + 1}`;
    if ('unreadable' in next) return { unreadable: `${next.unreadable} (${which})` };
    if (next.start.metadata.count('split.no') !== index + 1) return { unreadable: `${shard}: it is not ${which}` };
    fileBytes += next.fileBytes;
    tensors.push(next.start.tensors);
  }
  const header = describe(first.start.metadata, fileBytes, tensors);
  return 'unreadable' in header ? { unreadable: `${path}: ${header.unreadable}` } : header;
}

/** The shards after the first: llama.cpp finds them by name and wants to be given the first. */
function shardPaths(path: string, metadata: GgufMetadata): { readonly paths: readonly string[] } | Unreadable {
  const count = metadata.count('split.count') ?? 0;
  if (count <= 1) return { paths: [] };
  if (count > MAX_SHARDS) return { unreadable: `it claims to be one of ${count} shards` };
  const own = metadata.count('split.no') ?? 0;
  if (own !== 0) return { unreadable: `it is shard ${own + 1} of ${count}; give the first one` };
  const five = (number: number) => String(number).padStart(5, '0');
  const suffix = (number: number) => `-${five(number)}-of-${five(count)}.gguf`;
  if (!path.endsWith(suffix(1))) {
    return { unreadable: `it is the first of ${count} shards, but its name does not end in ${suffix(1)}` };
  }
  const stem = path.slice(0, -suffix(1).length);
  return { paths: Array.from({ length: count - 1 }, (_, index) => `${stem}${suffix(index + 2)}`) };
}

async function readFile(path: string, budget: { leftBytes: number }, signal: AbortSignal): Promise<File | Unreadable> {
  try {
    // Without O_NONBLOCK the opening of a pipe would wait for its writer.
    await using handle = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0));
    const stat = await handle.stat();
    if (!stat.isFile()) return { unreadable: `${path}: it is not a regular file` };
    const start = await readStart(handle, stat.size, budget, signal);
    return 'unreadable' in start ? { unreadable: `${path}: ${start.unreadable}` } : { start, fileBytes: stat.size };
  } catch (error) {
    return { unreadable: `${path}: ${explain(error)}` };
  }
}

/** Parses a longer and longer beginning of the file until the header is complete in it. */
async function readStart(
  handle: FileHandle,
  fileBytes: number,
  budget: { leftBytes: number },
  signal: AbortSignal,
): Promise<GgufStart | Unreadable> {
  let bytes: Buffer = Buffer.alloc(0);
  for (let wantedBytes = FIRST_READ_BYTES; !signal.aborted; wantedBytes *= 4) {
    const moreBytes = Math.min(Math.min(wantedBytes, fileBytes) - bytes.length, budget.leftBytes);
    const more = await readAt(handle, bytes.length, moreBytes);
    budget.leftBytes -= more.length;
    bytes = Buffer.concat([bytes, more]);
    // A file that has become shorter since is taken as it is now.
    const parsed = parseGguf(bytes, more.length < moreBytes ? bytes.length : fileBytes);
    if (parsed !== 'needs_more') return parsed;
    if (budget.leftBytes <= 0 || more.length === 0)
      return { unreadable: `its header is longer than ${MAX_HEADER_BYTES / MIB} MiB` };
  }
  return { unreadable: 'reading it was given up' };
}

async function readAt(handle: FileHandle, position: number, lengthBytes: number): Promise<Buffer> {
  const bytes = Buffer.alloc(Math.max(0, lengthBytes));
  let filled = 0;
  while (filled < bytes.length) {
    const { bytesRead } = await handle.read(bytes, filled, bytes.length - filled, position + filled);
    if (bytesRead === 0) break;
    filled += bytesRead;
  }
  return bytes.subarray(0, filled);
}

const CAUSES: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  ENOTDIR: 'there is no such file',
  EACCES: 'this user may not read it',
  EPERM: 'this user may not read it',
  EISDIR: 'it is a folder',
};

function explain(error: unknown): string {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown';
  return CAUSES[code] ?? `it cannot be read (${code})`;
}

function describe(metadata: GgufMetadata, fileBytes: number, tensors: readonly GgufTensors[]): GgufHeader | Unreadable {
  const architecture = metadata.text('general.architecture');
  if (architecture === null || architecture === '')
    return { unreadable: 'it names no architecture, so it is no model' };
  const count = (key: string) => metadata.count(`${architecture}.${key}`);
  const counts = (key: string) => metadata.counts(`${architecture}.${key}`);
  const blockCount = count('block_count');
  if (blockCount !== null && blockCount > MAX_LAYERS) {
    return { unreadable: `it claims ${blockCount} layers, more than any model has` };
  }
  // Without an output matrix the input table is one as well, and a copy of it goes to the GPU.
  const outputs = tensors.flatMap((part) => (part.outputBytes === null ? [] : [part.outputBytes]));
  const inputBytes = tensors.reduce((sum, part) => sum + part.inputBytes, 0);
  return {
    architecture,
    name: metadata.text('general.name'),
    fileBytes,
    shards: tensors.length,
    tensorBytes: tensors.reduce((sum, part) => sum + part.bytes, 0),
    hostTensorBytes: outputs.length === 0 ? 0 : inputBytes,
    outputBytes: outputs[0] ?? inputBytes,
    blockCount,
    contextLength: count('context_length'),
    embeddingLength: count('embedding_length'),
    headCount: counts('attention.head_count'),
    headCountKv: counts('attention.head_count_kv'),
    keyLength: count('attention.key_length'),
    valueLength: count('attention.value_length'),
    latentAttention: count('attention.key_length_mla') !== null,
    slidingWindow: count('attention.sliding_window'),
    slidingWindowPattern: counts('attention.sliding_window_pattern'),
    windowKeyLength: count('attention.key_length_swa'),
    windowValueLength: count('attention.value_length_swa'),
    fullAttentionInterval: count('full_attention_interval'),
    sharedKvLayers: count('attention.shared_kv_layers') ?? 0,
  };
}
