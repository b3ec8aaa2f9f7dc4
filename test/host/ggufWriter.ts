// Writes GGUF headers as a test wants them, sound or not.

const TYPE_IDS = { uint32: 4, int32: 5, bool: 7, string: 8, array: 9, uint64: 10 } as const;

type Scalar = { readonly type: 'uint32' | 'int32' | 'bool' | 'uint64'; readonly value: number };
type Value = Scalar | string | { readonly of: Scalar['type']; readonly values: readonly number[] } | readonly string[];

export interface TensorSpec {
  readonly name: string;
  readonly shape: readonly number[];
  /** ggml's number: 0 is F32, 1 F16, 12 Q4_K. */
  readonly type: number;
  readonly bytes: number;
}

export interface GgufSpec {
  readonly version?: number;
  readonly keys?: Readonly<Record<string, Value | number>>;
  readonly tensors?: readonly TensorSpec[];
  /** Instead of the true counts. */
  readonly claims?: { readonly keys?: bigint; readonly tensors?: bigint };
}

const ALIGNMENT = 32;

export function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

export function uint64(value: number | bigint): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

export function text(value: string): Buffer {
  return Buffer.concat([uint64(Buffer.byteLength(value)), Buffer.from(value)]);
}

function scalar({ type, value }: Scalar): Buffer {
  if (type === 'uint64') return uint64(value);
  if (type === 'bool') return Buffer.from([value]);
  return uint32(value >>> 0);
}

function entry(key: string, value: Value | number): Buffer {
  if (typeof value === 'number') return entry(key, { type: 'uint32', value });
  if (typeof value === 'string') return Buffer.concat([text(key), uint32(TYPE_IDS.string), text(value)]);
  if ('type' in value) return Buffer.concat([text(key), uint32(TYPE_IDS[value.type]), scalar(value)]);
  const [id, items] =
    'of' in value
      ? [TYPE_IDS[value.of], value.values.map((each) => scalar({ type: value.of, value: each }))]
      : [TYPE_IDS.string, value.map(text)];
  return Buffer.concat([text(key), uint32(TYPE_IDS.array), uint32(id), uint64(items.length), ...items]);
}

function padded(length: number): number {
  return Math.ceil(length / ALIGNMENT) * ALIGNMENT;
}

/** Header, tensor table and as many zeros as the tensors need. */
export function ggufBytes(spec: GgufSpec): Buffer {
  const { head, fileBytes } = ggufHead(spec);
  return Buffer.concat([head, Buffer.alloc(fileBytes - head.length)]);
}

/** For tensors that nobody has room for: header and tensor table, and how long the file has to be with them. */
export function ggufHead({ version = 3, keys = {}, tensors = [], claims = {} }: GgufSpec): {
  readonly head: Buffer;
  readonly fileBytes: number;
} {
  const entries = Object.entries(keys).map(([key, value]) => entry(key, value));
  let offset = 0;
  const infos = tensors.map(({ name, shape, type, bytes }) => {
    const info = [text(name), uint32(shape.length), ...shape.map(uint64), uint32(type), uint64(offset)];
    offset += padded(bytes);
    return Buffer.concat(info);
  });
  const head = Buffer.concat([
    Buffer.from('GGUF'),
    uint32(version),
    uint64(claims.tensors ?? tensors.length),
    uint64(claims.keys ?? entries.length),
    ...entries,
    ...infos,
  ]);
  return { head, fileBytes: tensors.length === 0 ? head.length : padded(head.length) + offset };
}
