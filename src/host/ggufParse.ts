/** The beginning of a GGUF file, versions 2 and 3, little endian: its keys and what its tensors weigh. Pure. */

const MAX_KEYS = 16_384;
const MAX_TENSORS = 65_536;
const MAX_NAME_BYTES = 65_535;
const MAX_TEXT_CHARS = 256;
const MAX_DIMENSIONS = 4;
const MAX_LIST = 1024;
const DEFAULT_ALIGNMENT = 32;

const STRING = 8;
const ARRAY = 9;
/** Bytes of a value by its type; none for strings and arrays. */
const SCALAR_BYTES: Readonly<Partial<Record<number, number>>> = {
  0: 1,
  1: 1,
  2: 2,
  3: 2,
  4: 4,
  5: 4,
  6: 4,
  7: 1,
  10: 8,
  11: 8,
  12: 8,
};

/** Elements and bytes of a block by ggml's number of the type; types that files do not hold are not here. */
const TENSOR_BLOCKS: Readonly<Partial<Record<number, readonly [elements: number, bytes: number]>>> = {
  0: [1, 4], // F32
  1: [1, 2], // F16
  2: [32, 18], // Q4_0
  3: [32, 20], // Q4_1
  6: [32, 22], // Q5_0
  7: [32, 24], // Q5_1
  8: [32, 34], // Q8_0
  10: [256, 84], // Q2_K
  11: [256, 110], // Q3_K
  12: [256, 144], // Q4_K
  13: [256, 176], // Q5_K
  14: [256, 210], // Q6_K
  16: [256, 66], // IQ2_XXS
  17: [256, 74], // IQ2_XS
  18: [256, 98], // IQ3_XXS
  19: [256, 50], // IQ1_S
  20: [32, 18], // IQ4_NL
  21: [256, 110], // IQ3_S
  22: [256, 82], // IQ2_S
  23: [256, 136], // IQ4_XS
  24: [1, 1], // I8
  25: [1, 2], // I16
  26: [1, 4], // I32
  27: [1, 8], // I64
  28: [1, 8], // F64
  29: [256, 56], // IQ1_M
  30: [1, 2], // BF16
  34: [256, 54], // TQ1_0
  35: [256, 66], // TQ2_0
  39: [32, 17], // MXFP4
  40: [64, 36], // NVFP4
  41: [128, 18], // Q1_0
};

export interface GgufTensors {
  /** Sum over the tensors, without padding; where one has a type unknown here, all that follows the header. */
  readonly bytes: number;
  /** Of these, tables that are only looked up (token embeddings). */
  readonly inputBytes: number;
  /** Null without an output matrix of its own: then the input table serves as one. */
  readonly outputBytes: number | null;
}

export interface GgufStart {
  readonly metadata: GgufMetadata;
  readonly tensors: GgufTensors;
}

export type GgufParse = GgufStart | { readonly unreadable: string } | 'needs_more';

class Malformed extends Error {}
class NeedsMore extends Error {}

/** `bytes` are the first of a file of `fileBytes`. */
export function parseGguf(bytes: Buffer, fileBytes: number): GgufParse {
  try {
    return readStart(new Cursor(bytes, fileBytes), bytes);
  } catch (error) {
    if (error instanceof NeedsMore) return 'needs_more';
    if (error instanceof Malformed) return { unreadable: error.message };
    throw error;
  }
}

/** Values by key, decoded when asked for; null when there is none of that kind. */
export class GgufMetadata {
  readonly #bytes: Buffer;
  readonly #places: ReadonlyMap<string, Place>;

  constructor(bytes: Buffer, places: ReadonlyMap<string, Place>) {
    this.#bytes = bytes;
    this.#places = places;
  }

  text(key: string): string | null {
    const place = this.#places.get(key);
    if (place?.type !== STRING) return null;
    const start = place.at + 8;
    // Cut before decoding: a text may be megabytes long.
    const end = Math.min(start + this.#bytes.readUInt32LE(place.at), start + MAX_TEXT_CHARS * 4);
    return this.#bytes.toString('utf8', start, end).slice(0, MAX_TEXT_CHARS);
  }

  /** A count: other numbers than whole ones from 0 up are taken for absent. */
  count(key: string): number | null {
    const place = this.#places.get(key);
    return place === undefined ? null : countAt(this.#bytes, place);
  }

  /** A count, or a list of at most 1024 counts, booleans as 0 and 1. */
  counts(key: string): number | readonly number[] | null {
    const place = this.#places.get(key);
    if (place?.type !== ARRAY) return this.count(key);
    const type = this.#bytes.readUInt32LE(place.at);
    const length = this.#bytes.readUInt32LE(place.at + 4);
    const step = SCALAR_BYTES[type];
    if (step === undefined || length > MAX_LIST || this.#bytes.readUInt32LE(place.at + 8) !== 0) return null;
    const values: number[] = [];
    for (let index = 0; index < length; index += 1) {
      const value = countAt(this.#bytes, { type, at: place.at + 12 + index * step });
      if (value === null) return null;
      values.push(value);
    }
    return values;
  }
}

interface Place {
  readonly type: number;
  readonly at: number;
}

function countAt(bytes: Buffer, { type, at }: Place): number | null {
  const value = numberAt(bytes, type, at);
  return value !== null && Number.isSafeInteger(value) && value >= 0 ? value : null;
}

function numberAt(bytes: Buffer, type: number, at: number): number | null {
  if (type === 0 || type === 7) return bytes.readUInt8(at);
  if (type === 1) return bytes.readInt8(at);
  if (type === 2) return bytes.readUInt16LE(at);
  if (type === 3) return bytes.readInt16LE(at);
  if (type === 4) return bytes.readUInt32LE(at);
  if (type === 5) return bytes.readInt32LE(at);
  if (type === 10) return Number(bytes.readBigUInt64LE(at));
  if (type === 11) return Number(bytes.readBigInt64LE(at));
  return null;
}

/** Moves over the bytes; stops with what is wrong, or with the wish for more of them. */
class Cursor {
  at = 0;
  readonly fileBytes: number;
  readonly #bytes: Buffer;

  constructor(bytes: Buffer, fileBytes: number) {
    this.#bytes = bytes;
    this.fileBytes = fileBytes;
  }

  /** Steps over `count` bytes and gives the place where they begin. */
  skip(count: number): number {
    const from = this.at;
    if (from + count > this.fileBytes) {
      throw new Malformed(`it is cut off: it ends after ${this.fileBytes} bytes, inside its header`);
    }
    if (from + count > this.#bytes.length) throw new NeedsMore();
    this.at = from + count;
    return from;
  }

  uint32(): number {
    return this.#bytes.readUInt32LE(this.skip(4));
  }

  uint64(): number {
    const from = this.skip(8);
    const value = this.#bytes.readUInt32LE(from) + this.#bytes.readUInt32LE(from + 4) * 2 ** 32;
    if (!Number.isSafeInteger(value)) throw new Malformed('it is damaged: its header holds a number no file can mean');
    return value;
  }

  name(): string {
    const length = this.uint64();
    if (length > MAX_NAME_BYTES) throw new Malformed(`it is damaged: its header holds a name of ${length} bytes`);
    const from = this.skip(length);
    return this.#bytes.toString('utf8', from, from + length);
  }
}

function readStart(cursor: Cursor, bytes: Buffer): GgufStart {
  readVersion(cursor, bytes);
  const tensorCount = cursor.uint64();
  const keyCount = cursor.uint64();
  if (tensorCount > MAX_TENSORS) throw new Malformed(`it claims ${tensorCount} tensors, more than any model has`);
  if (keyCount > MAX_KEYS) throw new Malformed(`it claims ${keyCount} keys, more than any model has`);
  const places = new Map<string, Place>();
  for (let index = 0; index < keyCount; index += 1) {
    const key = cursor.name();
    if (places.has(key)) throw new Malformed('it is damaged: its header holds a key twice');
    const type = cursor.uint32();
    places.set(key, { type, at: cursor.at });
    skipValue(cursor, type);
  }
  const metadata = new GgufMetadata(bytes, places);
  const alignment = metadata.count('general.alignment') ?? DEFAULT_ALIGNMENT;
  if (alignment === 0 || alignment > 2 ** 30 || !Number.isInteger(Math.log2(alignment))) {
    throw new Malformed(`it is damaged: its alignment is ${alignment}, not a power of two`);
  }
  return { metadata, tensors: readTensors(cursor, tensorCount, alignment) };
}

function readVersion(cursor: Cursor, bytes: Buffer): void {
  if (bytes.toString('latin1', cursor.skip(4), 4) !== 'GGUF') {
    throw new Malformed(`it is no GGUF file: it begins with the bytes ${bytes.toString('hex', 0, 4)}`);
  }
  const version = cursor.uint32();
  if (version === 2 || version === 3) return;
  if (version !== 0 && (version & 0xffff) === 0) {
    throw new Malformed('it is a big-endian GGUF file, made for another kind of machine');
  }
  throw new Malformed(`it is a GGUF file of version ${version}; versions 2 and 3 are known`);
}

function skipValue(cursor: Cursor, type: number): void {
  if (type === STRING) return void cursor.skip(cursor.uint64());
  if (type !== ARRAY) return void cursor.skip(scalarBytes(type));
  const elementType = cursor.uint32();
  const length = cursor.uint64();
  if (elementType !== STRING) return void cursor.skip(scalarBytes(elementType) * length);
  for (let index = 0; index < length; index += 1) cursor.skip(cursor.uint64());
}

function scalarBytes(type: number): number {
  const size = SCALAR_BYTES[type];
  if (size === undefined) throw new Malformed(`it is damaged: its header holds a value of unknown type ${type}`);
  return size;
}

/** Tables that llama.cpp keeps in host memory whatever is offloaded: it only takes rows out of them. */
const INPUT_TABLES: ReadonlySet<string> = new Set(['token_embd.weight', 'per_layer_token_embd.weight']);

function readTensors(cursor: Cursor, count: number, alignment: number): GgufTensors {
  const sum = { bytes: 0, inputBytes: 0, end: 0, allKnown: true };
  let outputBytes: number | null = null;
  for (let index = 0; index < count; index += 1) {
    const name = cursor.name();
    const size = readTensorBytes(cursor);
    sum.end = Math.max(sum.end, cursor.uint64() + (size ?? 0));
    sum.bytes += size ?? 0;
    sum.allKnown &&= size !== null;
    if (INPUT_TABLES.has(name)) sum.inputBytes += size ?? 0;
    if (name === 'output.weight') outputBytes = size ?? 0;
  }
  const dataOffset = Math.ceil(cursor.at / alignment) * alignment;
  const needed = count === 0 ? cursor.at : dataOffset + sum.end;
  if (needed > cursor.fileBytes || sum.bytes > cursor.fileBytes) {
    throw new Malformed(`it is cut off: it has ${cursor.fileBytes} bytes, its tensors need ${needed}`);
  }
  const bytes = sum.allKnown ? sum.bytes : cursor.fileBytes - dataOffset;
  return { bytes, inputBytes: sum.inputBytes, outputBytes };
}

/** Null for a type that is not known here. */
function readTensorBytes(cursor: Cursor): number | null {
  const dimensions = cursor.uint32();
  if (dimensions > MAX_DIMENSIONS) throw new Malformed(`it is damaged: a tensor has ${dimensions} dimensions`);
  let rowElements = 1;
  let elements = 1;
  for (let index = 0; index < dimensions; index += 1) {
    const extent = cursor.uint64();
    if (index === 0) rowElements = extent;
    elements *= extent;
  }
  const block = TENSOR_BLOCKS[cursor.uint32()];
  if (block === undefined) return null;
  const [blockElements, blockBytes] = block;
  if (rowElements % blockElements !== 0) throw new Malformed('it is damaged: a tensor has rows of broken blocks');
  const bytes = (elements / blockElements) * blockBytes;
  if (!Number.isSafeInteger(bytes)) throw new Malformed('it is damaged: a tensor has a size no file can hold');
  return bytes;
}
