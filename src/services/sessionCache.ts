/** How much of an engine's KV cache a session holds, as far as that is known: by the model's file, on the engine's node. */
import { estimateVram, type ModelShape } from '../core/vram.js';
import { readGgufHeader } from '../host/gguf.js';
import { modelShape } from '../host/ggufShape.js';
import type { HeldCache } from './sessionPlaces.js';

/** Models of one node; each is read once. */
const MAX_SHAPES = 256;

export class SessionCache {
  readonly #shapes = new Map<string, Promise<ModelShape | null>>();

  /** Bytes; 0: nothing is held, or nobody knows how much. */
  async bytes({ modelFile, tokens }: HeldCache): Promise<number> {
    if (modelFile === null || tokens <= 0) return 0;
    const shape = await this.#shapeOf(modelFile);
    return shape === null ? 0 : estimateVram({ ...shape, slots: 1, contextTokens: tokens }).kvBytes;
  }

  #shapeOf(path: string): Promise<ModelShape | null> {
    const known = this.#shapes.get(path);
    if (known !== undefined) return known;
    const [oldest] = this.#shapes.keys();
    if (this.#shapes.size >= MAX_SHAPES && oldest !== undefined) this.#shapes.delete(oldest);
    const shape = readShape(path);
    this.#shapes.set(path, shape);
    return shape;
  }
}

async function readShape(path: string): Promise<ModelShape | null> {
  const header = await readGgufHeader(path);
  if ('unreadable' in header) return null;
  const shape = modelShape(header);
  return 'unknown' in shape ? null : shape;
}
