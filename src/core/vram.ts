/**
 * How much GPU memory a llama.cpp replica will take, and whether it fits. Pure.
 *
 * weights + KV cache + working memory. The first two follow from the model; working memory is a rule of thumb
 * (`WORKING_BYTES`).
 */
import type { Reason } from './pool.js';

export interface ModelShape {
  /** Tensors that lie in GPU memory when every layer is there. */
  readonly weightsBytes: number;
  /** Of these, the output matrix; absent: as large as a layer. */
  readonly outputBytes?: number;
  readonly layers: number;
  /** KV heads of a layer, or of each; 0 for layers without a KV cache. */
  readonly kvHeads: number | readonly number[];
  /** Elements of a head's key and value for one token. */
  readonly keyLength: number;
  readonly valueLength: number;
  /** Layers that only look back so many tokens; absent when there are none. */
  readonly window?: {
    readonly tokens: number;
    /** By layer; what is missing counts as false. */
    readonly layers: readonly boolean[];
    readonly keyLength: number;
    readonly valueLength: number;
  };
}

export interface VramInput extends ModelShape {
  /** Of all slots together; see `contextTokensOf`. */
  readonly contextTokens: number;
  readonly slots?: number;
  /** 2 for f16, the default; 34 / 32 for q8_0. */
  readonly kvElementBytes?: number;
  /** As llama.cpp's `-ngl`: the last ones, the output matrix counted as one more. Absent: all. */
  readonly gpuLayers?: number;
}

export interface VramNeed {
  readonly totalBytes: number;
  /** How the number came about, for people. */
  readonly arithmetic: string;
}

/** `totalBytes` is the exact sum of the three. */
export interface VramEstimate extends VramNeed {
  readonly weightsBytes: number;
  readonly kvBytes: number;
  readonly overheadBytes: number;
}

const MIB = 1024 ** 2;
const GIB = 1024 ** 3;
/** What no GPU has: parts are cut here, so that sums stay exact whatever a damaged model claims. */
const MAX_PART_BYTES = 2 ** 50;
const MAX_LAYERS = 4096;
/** On every device: CUDA context and kernels (about 300 MiB), buffers for batches of 512 tokens (about 200 MiB). */
const WORKING_BYTES = 512 * MIB;
/** llama.cpp's batch. Its attention mask has an f16 for each token of it and each of a slot's context. */
const BATCH_TOKENS = 512;
const MASK_BYTES_PER_TOKEN = BATCH_TOKENS * 2;
/** llama.cpp rounds the context of a slot up to this. */
const CONTEXT_STEP = 256;

/** The context of all slots, as llama.cpp allocates it. */
export function contextTokensOf(contextPerSlot: number, slots: number): number {
  return roundUp(amount(contextPerSlot)) * amount(slots);
}

export function estimateVram(input: VramInput): VramEstimate {
  const units = unitsOf(input);
  return estimateRange(input, units - gpuUnitsOf(input), units);
}

/**
 * One estimate per device, for whole layers split by `ratios` as llama.cpp does it (`-sm layer`): the pool is as large
 * as what fits on the device that is full first. Without ratios of the pool, llama.cpp takes the devices' free memory.
 */
export function estimateSplit(input: VramInput, ratios: readonly number[]): VramEstimate[] {
  const units = unitsOf(input);
  const first = units - gpuUnitsOf(input);
  return boundaries(ratios, units - first).map(([from, to]) => {
    const estimate = estimateRange(input, first + from, first + to);
    if (ratios.length < 2) return estimate;
    return { ...estimate, arithmetic: `${to - from} of ${units} layers: ${estimate.arithmetic}` };
  });
}

/** Null when it fits. A free amount that is not known (NaN, negative) counts as none. */
export function checkFit(options: {
  readonly need: VramNeed;
  readonly freeBytes: number;
  /** As people know it: `GPU 0 (RTX 3090)`. */
  readonly device: string;
}): Reason | null {
  const { need, device } = options;
  const freeBytes = amount(options.freeBytes);
  if (need.totalBytes <= freeBytes) return null;
  const missing = formatBytes(need.totalBytes - freeBytes);
  return {
    code: 'VRAM_INSUFFICIENT',
    message: `${device} has ${formatBytes(freeBytes)} of memory free, ${missing} less than a replica needs: ${need.arithmetic}.`,
    fix: fixFor(need, freeBytes),
  };
}

function fixFor(need: VramNeed, freeBytes: number): string {
  const elsewhere = 'free memory on the GPU, or use more or larger GPUs (devices)';
  if (isEstimate(need) && need.weightsBytes + need.overheadBytes > freeBytes) {
    return `The weights alone do not fit: use a smaller model or quantization, ${elsewhere}.`;
  }
  return `Lower ctx or slots of the pool, use a smaller model or quantization, ${elsewhere}.`;
}

function isEstimate(need: VramNeed): need is VramEstimate {
  return 'weightsBytes' in need && 'overheadBytes' in need;
}

/** `4.3 GiB`; below a twentieth of a GiB `12 MiB`, below a twentieth of a MiB `700 bytes`. */
export function formatBytes(bytes: number): string {
  if (bytes >= GIB / 20) return `${(bytes / GIB).toFixed(1)} GiB`;
  if (bytes >= MIB / 20) return `${Number((bytes / MIB).toFixed(1))} MiB`;
  return counted(bytes, 'byte');
}

/** For the layers [from, to), of which the one after the last is the output matrix. */
function estimateRange(input: VramInput, from: number, to: number): VramEstimate {
  const layers = unitsOf(input) - 1;
  // Differences of one rising sequence: the devices' weights add up to exactly the whole.
  const weightsBytes = weightsBefore(input, to) - weightsBefore(input, from);
  const groups = kvGroups(input, from, Math.min(to, layers));
  const kvBytes = Math.min(MAX_PART_BYTES, Math.ceil(groups.reduce((sum, group) => sum + group.bytes, 0)));
  const slotTokens = Math.ceil(amount(input.contextTokens) / slotsOf(input));
  const overheadBytes = Math.min(MAX_PART_BYTES, WORKING_BYTES + slotTokens * MASK_BYTES_PER_TOKEN);
  const totalBytes = weightsBytes + kvBytes + overheadBytes;
  const product = groups.map((group) => group.product).join(' + ');
  const kv = `${formatBytes(kvBytes)} KV cache${product === '' ? '' : ` (${product})`}`;
  const working = `${formatBytes(overheadBytes)} working memory`;
  const arithmetic = `${formatBytes(weightsBytes)} weights + ${kv} + ${working} = ${formatBytes(totalBytes)}`;
  return { weightsBytes, kvBytes, overheadBytes, totalBytes, arithmetic };
}

/** Weights of the first `count` layers, all taken to be of one size but the output matrix. */
function weightsBefore(input: VramInput, count: number): number {
  const units = unitsOf(input);
  const weightsBytes = amount(input.weightsBytes);
  if (count >= units) return weightsBytes;
  const outputBytes = Math.min(weightsBytes, amount(input.outputBytes ?? weightsBytes / units));
  return count === 0 ? 0 : shareOf(weightsBytes - outputBytes, count, units - 1);
}

/** `bytes × count / of`, rounded down. Exact: as one product it would not fit a double, and a byte would be lost. */
function shareOf(bytes: number, count: number, of: number): number {
  const rest = bytes % of;
  return ((bytes - rest) / of) * count + Math.floor((rest * count) / of);
}

interface KvGroup {
  readonly bytes: number;
  readonly product: string;
}

/** The layers with and without a window: each kind is one product. */
function kvGroups(input: VramInput, fromLayer: number, toLayer: number): KvGroup[] {
  const { window } = input;
  const slots = slotsOf(input);
  const contextTokens = amount(input.contextTokens);
  const hasWindow = (layer: number) => window?.layers[layer] === true;
  const groups = [
    kvGroup(
      input,
      headsOf(input, fromLayer, toLayer, (layer) => !hasWindow(layer)),
      contextTokens,
      input,
    ),
  ];
  if (window !== undefined) {
    const tokens = Math.min(contextTokens, slots * roundUp(amount(window.tokens) + BATCH_TOKENS));
    groups.push(kvGroup(input, headsOf(input, fromLayer, toLayer, hasWindow), tokens, window));
  }
  return groups.filter((group) => group.bytes > 0);
}

/** KV heads of the chosen layers; layers without any are left out. */
function headsOf(input: VramInput, from: number, to: number, chosen: (layer: number) => boolean): readonly number[] {
  const heads: number[] = [];
  for (let layer = from; layer < to; layer += 1) {
    const count = amount(typeof input.kvHeads === 'number' ? input.kvHeads : (input.kvHeads[layer] ?? 0));
    if (count > 0 && chosen(layer)) heads.push(count);
  }
  return heads;
}

function kvGroup(
  input: VramInput,
  heads: readonly number[],
  tokens: number,
  lengths: { readonly keyLength: number; readonly valueLength: number },
): KvGroup {
  const slots = slotsOf(input);
  const elementBytes = quantity(input.kvElementBytes ?? 2);
  const [key, value] = [amount(lengths.keyLength), amount(lengths.valueLength)];
  const allHeads = heads.reduce((sum, count) => sum + count, 0);
  const alike = heads.every((count) => count === heads[0]);
  const layers = alike
    ? `${counted(heads.length, 'layer')} × ${counted(heads[0] ?? 0, 'head')}`
    : `${allHeads} heads of ${heads.length} layers`;
  const inSlots = slots > 1 && tokens % slots === 0 ? `${tokens / slots} tokens × ${slots} slots` : `${tokens} tokens`;
  return {
    bytes: allHeads * (key + value) * elementBytes * tokens,
    product: `${layers} × (${key} + ${value}) × ${elementBytes} bytes × ${inSlots}`,
  };
}

/** Which of `units` layers each device has, as [from, to). Ratios that are none count as 0; all 0 means even shares. */
function boundaries(ratios: readonly number[], units: number): (readonly [number, number])[] {
  // Scaled by the largest first: free bytes of devices may be given as they are.
  const largest = Math.max(0, ...ratios.map(quantity));
  const shares = ratios.length === 0 ? [1] : ratios.map((ratio) => (largest === 0 ? 1 : quantity(ratio) / largest));
  const sum = shares.reduce((total, share) => total + share, 0);
  let before = 0;
  let from = 0;
  return shares.map((share, index) => {
    before += share;
    // Layer i belongs to the first device whose cumulative share lies above i / units.
    const to = index === shares.length - 1 ? units : Math.min(units, Math.ceil((before / sum) * units));
    const range = [from, to] as const;
    from = to;
    return range;
  });
}

/** The layers and the output matrix. */
function unitsOf(input: VramInput): number {
  return Math.min(amount(input.layers), MAX_LAYERS) + 1;
}

function gpuUnitsOf(input: VramInput): number {
  const units = unitsOf(input);
  return Math.min(amount(input.gpuLayers ?? units), units);
}

function counted(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`;
}

function slotsOf(input: VramInput): number {
  return Math.max(1, amount(input.slots ?? 1));
}

function roundUp(tokens: number): number {
  return Math.ceil(tokens / CONTEXT_STEP) * CONTEXT_STEP;
}

/** A whole number from 0 up, whatever is given. */
function amount(value: number): number {
  return Math.ceil(quantity(value));
}

function quantity(value: number): number {
  if (Number.isNaN(value) || value <= 0) return 0;
  return Math.min(value, MAX_PART_BYTES);
}
