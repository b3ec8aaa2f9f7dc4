/** From what a GGUF header says to what a VRAM estimate needs: which layers cache how much. Pure. */
import type { ModelShape } from '../core/vram.js';
import type { GgufHeader } from './gguf.js';

/**
 * Every how many layers one looks back without bound, for architectures whose files state a window and no pattern
 * because llama.cpp has it in its code. In files of other architectures a window without a pattern is not believed:
 * several state one that llama.cpp does not use.
 */
const WINDOW_PERIODS: Readonly<Partial<Record<string, number>>> = {
  cohere2: 4,
  exaone4: 4,
  gemma2: 2,
  gemma3: 6,
  gemma3n: 5,
  'gpt-oss': 2,
  olmo2: 4,
};

/** `unknown` names what the file does not say (a projector, an adapter); then no estimate can be made. */
export function modelShape(header: GgufHeader): ModelShape | { readonly unknown: string } {
  const { blockCount: layers, embeddingLength } = header;
  if (layers === null) return { unknown: `the file states no number of layers (${header.architecture}.block_count)` };
  const heads = firstAbove0(header.headCount);
  const evenLength = embeddingLength === null || heads === 0 ? null : Math.floor(embeddingLength / heads);
  const keyLength = header.keyLength ?? evenLength;
  const valueLength = header.latentAttention ? 0 : (header.valueLength ?? evenLength);
  const kvHeads = kvHeadsOf(header, layers);
  if ((keyLength === null || valueLength === null) && kvHeads.some((count) => count > 0)) {
    return { unknown: `the file does not state the size of its attention heads (${header.architecture}.attention)` };
  }
  const window = windowOf(header, layers);
  const [full, fullValue] = [keyLength ?? 0, valueLength ?? 0];
  return {
    weightsBytes: Math.max(0, header.tensorBytes - header.hostTensorBytes),
    outputBytes: header.outputBytes,
    layers,
    kvHeads,
    keyLength: full,
    valueLength: fullValue,
    ...(window !== null && {
      window: {
        ...window,
        keyLength: header.windowKeyLength ?? full,
        valueLength: header.windowValueLength ?? fullValue,
      },
    }),
  };
}

function kvHeadsOf(header: GgufHeader, layers: number): readonly number[] {
  const { fullAttentionInterval: interval } = header;
  return Array.from({ length: layers }, (_, layer) => {
    if (layer >= layers - header.sharedKvLayers) return 0;
    if (interval !== null && interval > 0 && (layer + 1) % interval !== 0) return 0;
    // Without a number of their own there are as many as query heads.
    return atLayer(header.headCountKv, layer) ?? atLayer(header.headCount, layer) ?? 0;
  });
}

function windowOf(
  header: GgufHeader,
  layers: number,
): { readonly tokens: number; readonly layers: readonly boolean[] } | null {
  const tokens = header.slidingWindow ?? 0;
  const pattern = header.slidingWindowPattern ?? WINDOW_PERIODS[header.architecture] ?? 1;
  if (tokens === 0 || pattern === 0 || pattern === 1) return null;
  const hasWindow = (layer: number) =>
    typeof pattern === 'number' ? layer % pattern < pattern - 1 : pattern[layer] === 1;
  return { tokens, layers: Array.from({ length: layers }, (_, layer) => hasWindow(layer)) };
}

function atLayer(counts: number | readonly number[] | null, layer: number): number | null {
  return typeof counts === 'number' ? counts : (counts?.[layer] ?? null);
}

/** Layers without attention state 0 heads. */
function firstAbove0(counts: number | readonly number[] | null): number {
  return typeof counts === 'number' ? counts : (counts?.find((count) => count > 0) ?? 0);
}
