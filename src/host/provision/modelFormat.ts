/** What kind of file a model is, by its first bytes. Some kinds run code of whoever made them when they are loaded. */
import type { FileHandle } from 'node:fs/promises';
import { ProvisionError } from './provisionError.js';

const HEAD_BYTES = 9;
/** Of the JSON that a safetensors file begins with; readers take no longer one. */
const MAX_SAFETENSORS_HEADER = 100_000_000n;

function isSafetensors(head: Buffer): boolean {
  if (head.length < HEAD_BYTES || head[8] !== 0x7b) return false;
  const length = head.readBigUInt64LE(0);
  return length >= 2n && length <= MAX_SAFETENSORS_HEADER;
}

/** PyTorch's files are zip archives with a pickle in them, or, older ones, pickles. */
function isPickle(head: Buffer): boolean {
  const [first = 0, second = 0] = head;
  return head.subarray(0, 4).toString('latin1') === 'PK\x03\x04' || (first === 0x80 && second >= 2 && second <= 5);
}

/** Throws ProvisionError `UNSAFE_FORMAT` for what is neither GGUF nor safetensors, which are data alone. */
export async function checkModelFormat({ path, file }: { readonly path: string; readonly file: FileHandle }) {
  const { bytesRead, buffer } = await file.read(Buffer.alloc(HEAD_BYTES), 0, HEAD_BYTES, 0);
  const head = buffer.subarray(0, bytesRead);
  if (head.subarray(0, 4).toString('latin1') === 'GGUF' || isSafetensors(head)) return;
  const what = isPickle(head) ? ', but like a pickle, which runs code when it is loaded' : '';
  throw new ProvisionError(
    'UNSAFE_FORMAT',
    `${path} begins like neither GGUF nor safetensors${what}`,
    'Take the model in one of these formats, or set catalog.allow_any_format: true if you trust whoever made the file.',
  );
}
