/**
 * The NVIDIA Management Library, called through koffi. A call into the driver may hang for ever or crash, so this runs in
 * the helper process alone. Calls go to a worker thread, one at a time.
 */
import koffi from 'koffi';
import { type GpuPoll, type GpuProcess, type GpuSample, type LostGpu, plausible } from '../../core/gpu.js';
import { messageOf } from '../startupError.js';
import { isDriverGone, isGpuBroken, MAX_NVML_PROCESSES, NVML, nvmlWords } from './nvmlCodes.js';

type Argument = bigint | number | Buffer;
type NativeFunction = (...args: readonly Argument[]) => Promise<number>;

const DEVICE = 'uintptr_t';
/** Name → parameters; every function returns nvmlReturn_t. What a driver does not export answers "function not found". */
const FUNCTIONS = {
  nvmlInit_v2: [],
  nvmlDeviceGetCount_v2: ['void *'],
  nvmlDeviceGetHandleByIndex_v2: ['uint32_t', 'void *'],
  nvmlDeviceGetUUID: [DEVICE, 'void *', 'uint32_t'],
  nvmlDeviceGetName: [DEVICE, 'void *', 'uint32_t'],
  nvmlDeviceGetMemoryInfo_v2: [DEVICE, 'void *'],
  nvmlDeviceGetMemoryInfo: [DEVICE, 'void *'],
  nvmlDeviceGetUtilizationRates: [DEVICE, 'void *'],
  nvmlDeviceGetTotalEccErrors: [DEVICE, 'uint32_t', 'uint32_t', 'void *'],
  nvmlDeviceGetTemperature: [DEVICE, 'uint32_t', 'void *'],
  nvmlDeviceGetPowerUsage: [DEVICE, 'void *'],
  nvmlDeviceGetCudaComputeCapability: [DEVICE, 'void *', 'void *'],
  nvmlDeviceGetMigMode: [DEVICE, 'void *', 'void *'],
  nvmlDeviceGetComputeRunningProcesses_v2: [DEVICE, 'void *', 'void *'],
  nvmlDeviceGetComputeRunningProcesses_v3: [DEVICE, 'void *', 'void *'],
  nvmlEventSetCreate: ['void *'],
  nvmlDeviceGetSupportedEventTypes: [DEVICE, 'void *'],
  nvmlDeviceRegisterEvents: [DEVICE, 'uint64_t', 'uintptr_t'],
  nvmlEventSetWait_v2: ['uintptr_t', 'void *', 'uint32_t'],
  nvmlEventSetFree: ['uintptr_t'],
} as const satisfies Record<string, readonly string[]>;
type FunctionName = keyof typeof FUNCTIONS;

/** NVML uses more stack than koffi gives an asynchronous call by default. */
const STACK_BYTES = 2 * 1024 * 1024;
const UUID_BYTES = 96;
const NAME_BYTES = 96;
const MEMORY_V2_BYTES = 40;
const MEMORY_V2_VERSION = MEMORY_V2_BYTES | (2 << 24);
const EVENT_BYTES = 32;
/** pid, 4 bytes of padding, memory, two numbers of MIG. */
const PROCESS_BYTES = 24;
/** Where the driver leaves the accounting to somebody else (Windows, some virtual GPUs). */
const VALUE_NOT_AVAILABLE = 0xffff_ffff_ffff_ffffn;
const XID_EVENT = 0x8n;
const MAX_GPUS = 256;
const ECC_UNCORRECTED = 1;
const ECC_VOLATILE = 0;

export class NvmlError extends Error {
  readonly code: number;
  constructor(what: string, code: number) {
    super(`${what}: ${nvmlWords(code)}`);
    this.name = 'NvmlError';
    this.code = code;
  }
}

export interface XidEvent {
  /** null: the GPU could not be asked who it is. */
  readonly uuid: string | null;
  readonly xid: number;
}

export class Nvml {
  readonly #functions: ReadonlyMap<FunctionName, NativeFunction>;
  /** Handle → uuid: a GPU that is lost cannot be asked any more. */
  readonly #uuids = new Map<bigint, string>();
  #eventSet: bigint | null = null;
  /** Arguments of the call in progress: while another thread writes to its buffers, they must not be collected. */
  readonly #inUse = new Set<readonly Argument[]>();

  /** Throws what the dynamic linker says when the library cannot be loaded. */
  constructor(path: string) {
    koffi.config({ async_stack_size: STACK_BYTES });
    const library = koffi.load(path);
    const functions = new Map<FunctionName, NativeFunction>();
    for (const name of Object.keys(FUNCTIONS).filter(isFunctionName)) {
      const native = bind(library, name);
      if (native !== null) functions.set(name, native);
    }
    this.#functions = functions;
  }

  /** Initialises NVML, which can take many seconds, and polls for the first time. */
  open(): Promise<GpuPoll> {
    return this.#guarded(async () => {
      await this.#must('nvmlInit_v2');
      return this.#pollAll();
    });
  }

  poll(): Promise<GpuPoll> {
    return this.#guarded(() => this.#pollAll());
  }

  /** Asks for the XIDs of every GPU. Returns why some will not be told, or null. */
  async watchXids(): Promise<string | null> {
    const set = Buffer.alloc(8);
    const created = await this.#call('nvmlEventSetCreate', set);
    if (created !== NVML.success) return `no events: ${nvmlWords(created)}`;
    const eventSet = set.readBigUInt64LE();
    const refusals: string[] = [];
    let watched = 0;
    for (const [handle, uuid] of this.#uuids) {
      const code = await this.#register(handle, eventSet);
      if (code === NVML.success) watched += 1;
      else refusals.push(`${uuid}: ${nvmlWords(code)}`);
    }
    if (watched > 0) this.#eventSet = eventSet;
    else await this.#call('nvmlEventSetFree', eventSet);
    return refusals.length === 0 ? null : `no XID events from ${refusals.slice(0, 8).join('; ')}`;
  }

  get watchesXids(): boolean {
    return this.#eventSet !== null;
  }

  /** Waits at most `timeoutMs`; null when nothing came or when what came was no XID. Throws NvmlError. */
  async nextXid(timeoutMs: number): Promise<XidEvent | null> {
    if (this.#eventSet === null) throw new NvmlError('waiting for events', NVML.uninitialized);
    const event = Buffer.alloc(EVENT_BYTES);
    const code = await this.#call('nvmlEventSetWait_v2', this.#eventSet, event, Math.max(1, Math.round(timeoutMs)));
    if (code === NVML.timeout) return null;
    if (code !== NVML.success) throw new NvmlError('waiting for events', code);
    if ((event.readBigUInt64LE(8) & XID_EVENT) === 0n) return null;
    const handle = event.readBigUInt64LE(0);
    const uuid = this.#uuids.get(handle) ?? (await this.#text('nvmlDeviceGetUUID', handle, UUID_BYTES));
    return { uuid, xid: event.readUInt32LE(16) };
  }

  async #guarded(ask: () => Promise<GpuPoll>): Promise<GpuPoll> {
    try {
      return await ask();
    } catch (error) {
      return {
        ok: false,
        message: messageOf(error),
        fix: 'Check that `nvidia-smi` works; look for an Xid in the kernel log (dmesg).',
        driverGone: error instanceof NvmlError && isDriverGone(error.code),
      };
    }
  }

  async #register(handle: bigint, eventSet: bigint): Promise<number> {
    const supported = Buffer.alloc(8);
    const code = await this.#call('nvmlDeviceGetSupportedEventTypes', handle, supported);
    if (code !== NVML.success) return code;
    if ((supported.readBigUInt64LE() & XID_EVENT) === 0n) return NVML.notSupported;
    return this.#call('nvmlDeviceRegisterEvents', handle, XID_EVENT, eventSet);
  }

  async #pollAll(): Promise<GpuPoll> {
    const count = Buffer.alloc(4);
    await this.#must('nvmlDeviceGetCount_v2', count);
    const samples: GpuSample[] = [];
    const lost: LostGpu[] = [];
    let complete = true;
    const gpus = Math.min(count.readUInt32LE(), MAX_GPUS);
    for (let index = 0; index < gpus; index += 1) {
      const one = await this.#pollOne(index);
      if (one === null) complete = false;
      else if ('reason' in one) lost.push(one);
      else samples.push(one);
    }
    return { ok: true, samples, lost, complete };
  }

  /** null: it could not be asked, for a reason that does not say that it is broken. */
  async #pollOne(index: number): Promise<GpuSample | LostGpu | null> {
    const buffer = Buffer.alloc(8);
    const found = await this.#call('nvmlDeviceGetHandleByIndex_v2', index, buffer);
    if (found !== NVML.success) return isGpuBroken(found) ? { uuid: null, index, reason: nvmlWords(found) } : null;
    const handle = buffer.readBigUInt64LE();
    const uuid = this.#uuids.get(handle) ?? (await this.#text('nvmlDeviceGetUUID', handle, UUID_BYTES));
    if (uuid === null) return null;
    if (this.#uuids.size < MAX_GPUS) this.#uuids.set(handle, uuid);
    const memory = await this.#memory(handle);
    if (isGpuBroken(memory.code)) return { uuid, index, reason: nvmlWords(memory.code) };
    return plausible({
      uuid,
      index,
      name: (await this.#text('nvmlDeviceGetName', handle, NAME_BYTES)) ?? 'NVIDIA GPU',
      memoryTotalBytes: memory.totalBytes,
      memoryFreeBytes: memory.freeBytes,
      memoryUsedBytes: memory.usedBytes,
      utilizationPercent: await this.#number(4, 'nvmlDeviceGetUtilizationRates', handle),
      temperatureC: await this.#number(4, 'nvmlDeviceGetTemperature', handle, 0),
      eccUncorrected: await this.#number(8, 'nvmlDeviceGetTotalEccErrors', handle, ECC_UNCORRECTED, ECC_VOLATILE),
      powerWatts: scaled(await this.#number(4, 'nvmlDeviceGetPowerUsage', handle), 1 / 1000),
      computeCapability: await this.#computeCapability(handle),
      migEnabled: await this.#migEnabled(handle),
      processes: await this.#processes(handle),
    });
  }

  /** Null where the driver does not tell, or has more than can be asked for. */
  async #processes(handle: bigint): Promise<readonly GpuProcess[] | null> {
    const count = Buffer.alloc(4);
    const list = Buffer.alloc(MAX_NVML_PROCESSES * PROCESS_BYTES);
    const ask = (name: FunctionName): Promise<number> => {
      count.writeUInt32LE(MAX_NVML_PROCESSES);
      return this.#call(name, handle, count, list);
    };
    // The older first: some drivers of the 535 series fill a longer structure under the newer name.
    let code = await ask('nvmlDeviceGetComputeRunningProcesses_v2');
    if (code === NVML.functionNotFound) code = await ask('nvmlDeviceGetComputeRunningProcesses_v3');
    if (code !== NVML.success) return null;
    const found = Math.min(count.readUInt32LE(), MAX_NVML_PROCESSES);
    return Array.from({ length: found }, (_, at) => processAt(list, at * PROCESS_BYTES)).filter(({ pid }) => pid > 0);
  }

  async #memory(handle: bigint): Promise<{
    readonly code: number;
    readonly totalBytes: number | null;
    readonly freeBytes: number | null;
    readonly usedBytes: number | null;
  }> {
    const v2 = Buffer.alloc(MEMORY_V2_BYTES);
    v2.writeUInt32LE(MEMORY_V2_VERSION);
    const code = await this.#call('nvmlDeviceGetMemoryInfo_v2', handle, v2);
    if (code === NVML.success) return { code, ...memoryAt(v2, 8, 24, 32) };
    if (isGpuBroken(code)) return { code, totalBytes: null, freeBytes: null, usedBytes: null };
    const v1 = Buffer.alloc(24);
    const older = await this.#call('nvmlDeviceGetMemoryInfo', handle, v1);
    if (older === NVML.success) return { code: older, ...memoryAt(v1, 0, 8, 16) };
    return { code: older, totalBytes: null, freeBytes: null, usedBytes: null };
  }

  async #computeCapability(handle: bigint): Promise<string | null> {
    const major = Buffer.alloc(4);
    const minor = Buffer.alloc(4);
    const code = await this.#call('nvmlDeviceGetCudaComputeCapability', handle, major, minor);
    return code === NVML.success ? `${major.readInt32LE()}.${minor.readInt32LE()}` : null;
  }

  async #migEnabled(handle: bigint): Promise<boolean | null> {
    const current = Buffer.alloc(4);
    const code = await this.#call('nvmlDeviceGetMigMode', handle, current, Buffer.alloc(4));
    return code === NVML.success ? current.readUInt32LE() === 1 : null;
  }

  /** The unsigned number that the function writes through its last parameter; for a structure, its first field. */
  async #number(bytes: 4 | 8, name: FunctionName, ...args: readonly Argument[]): Promise<number | null> {
    const out = Buffer.alloc(8);
    if ((await this.#call(name, ...args, out)) !== NVML.success) return null;
    return bytes === 4 ? out.readUInt32LE() : Number(out.readBigUInt64LE());
  }

  async #text(name: FunctionName, handle: bigint, bytes: number): Promise<string | null> {
    const out = Buffer.alloc(bytes);
    if ((await this.#call(name, handle, out, bytes)) !== NVML.success) return null;
    const end = out.indexOf(0);
    const text = out.toString('utf8', 0, end < 0 ? bytes : end).replace(/\p{Cc}+/gu, ' ');
    return text === '' ? null : text;
  }

  async #must(name: FunctionName, ...args: readonly Argument[]): Promise<void> {
    const code = await this.#call(name, ...args);
    if (code !== NVML.success) throw new NvmlError(name, code);
  }

  async #call(name: FunctionName, ...args: readonly Argument[]): Promise<number> {
    const native = this.#functions.get(name);
    if (native === undefined) return NVML.functionNotFound;
    this.#inUse.add(args);
    try {
      return await native(...args);
    } finally {
      this.#inUse.delete(args);
    }
  }
}

function isFunctionName(name: string): name is FunctionName {
  return Object.hasOwn(FUNCTIONS, name);
}

function bind(library: ReturnType<typeof koffi.load>, name: FunctionName): NativeFunction | null {
  try {
    const native = library.func(name, 'int', [...FUNCTIONS[name]]);
    return (...args) =>
      new Promise((resolve, reject) => {
        native.async(...args, (error: unknown, code: unknown) => {
          if (error === null || error === undefined) resolve(Number(code));
          else reject(error);
        });
      });
  } catch {
    return null;
  }
}

function memoryAt(
  buffer: Buffer,
  total: number,
  free: number,
  used: number,
): { readonly totalBytes: number; readonly freeBytes: number; readonly usedBytes: number } {
  const read = (offset: number): number => Number(buffer.readBigUInt64LE(offset));
  return { totalBytes: read(total), freeBytes: read(free), usedBytes: read(used) };
}

function processAt(list: Buffer, offset: number): GpuProcess {
  const used = list.readBigUInt64LE(offset + 8);
  return { pid: list.readUInt32LE(offset), usedBytes: used === VALUE_NOT_AVAILABLE ? null : Number(used) };
}

function scaled(value: number | null, factor: number): number | null {
  return value === null ? null : value * factor;
}
