/** What is known about a GPU, how old that may be before it counts as stale, and what the driver's XID codes mean. */

export interface Gpu {
  readonly uuid: string;
  /** Order of the PCI bus; can change at each boot, so a GPU is chosen by its uuid. */
  readonly index: number;
  readonly name: string;
  readonly memoryTotalBytes: number;
  readonly simulated: boolean;
}

/** A process that computes on a GPU. */
export interface GpuProcess {
  readonly pid: number;
  /** Of that GPU's memory; null: the driver does not say. */
  readonly usedBytes: number | null;
}

/** The quantities a source may or may not tell; null: it did not, or it told something impossible. */
export interface GpuGauges {
  readonly memoryFreeBytes: number | null;
  /** Some drivers count what they reserve for themselves as used, so free and used need not add up to the total. */
  readonly memoryUsedBytes: number | null;
  /** Share of time with work on the GPU, not how full it is. */
  readonly utilizationPercent: number | null;
  readonly temperatureC: number | null;
  /** Uncorrected memory errors since the driver was loaded; null also where ECC is off. */
  readonly eccUncorrected: number | null;
  readonly powerWatts: number | null;
  /** E.g. `9.0`. */
  readonly computeCapability: string | null;
  readonly migEnabled: boolean | null;
  /** Those that the driver lists; null: it lists none. In a container it hides them, or numbers them as the host does. */
  readonly processes: readonly GpuProcess[] | null;
}

/** What one poll says about one GPU. */
export interface GpuSample extends GpuGauges {
  readonly uuid: string;
  readonly index: number;
  readonly name: string;
  readonly memoryTotalBytes: number | null;
}

/** A GPU that the source names as broken; it may know its index alone. */
export interface LostGpu {
  readonly uuid: string | null;
  readonly index: number | null;
  readonly reason: string;
}

export type GpuPoll =
  | {
      readonly ok: true;
      readonly samples: readonly GpuSample[];
      readonly lost: readonly LostGpu[];
      /** False when GPUs may be missing from the list although they are well. */
      readonly complete: boolean;
    }
  | {
      readonly ok: false;
      readonly message: string;
      readonly fix: string;
      /** The driver is not there (unloaded, being replaced), as against busy or hung. */
      readonly driverGone: boolean;
    };

/** `degraded`: it answers, but needs a reset or repair. `lost`: it does not answer or is not listed any more. */
export type GpuHealth = 'ok' | 'degraded' | 'lost';

export interface GpuReading extends GpuGauges {
  readonly gpu: Gpu;
  /** The numbers are older than the limit: do not place anything by them. */
  readonly stale: boolean;
  readonly ageMs: number;
  readonly lastXid: XidReport | null;
  readonly health: GpuHealth;
  /** Why it is not `ok`, or why the numbers are stale. */
  readonly reason: string | null;
}

export type GpuEvent =
  | ({ readonly type: 'xid'; readonly uuid: string | null } & XidFacts)
  | { readonly type: 'lost'; readonly uuid: string; readonly reason: string }
  | { readonly type: 'recovered'; readonly uuid: string; readonly from: 'lost' | 'stale' }
  | { readonly type: 'stale'; readonly uuid: string; readonly ageMs: number; readonly reason: string }
  /** What was known of these GPUs' errors is void: driver or GPU began anew. */
  | { readonly type: 'driver_reset'; readonly uuids: readonly string[]; readonly reason: string };

export const GPU_STALE_AFTER_MS = 10_000;

export const NO_GAUGES: GpuGauges = {
  memoryFreeBytes: null,
  memoryUsedBytes: null,
  utilizationPercent: null,
  temperatureC: null,
  eccUncorrected: null,
  powerWatts: null,
  computeCapability: null,
  migEnabled: null,
  processes: null,
};

export function isStale(ageMs: number, staleAfterMs = GPU_STALE_AFTER_MS): boolean {
  return ageMs > staleAfterMs;
}

function within(value: number | null, min: number, max: number): number | null {
  return value !== null && value >= min && value <= max ? value : null;
}

function count(value: number | null): number | null {
  return Number.isSafeInteger(value) ? within(value, 0, Number.MAX_SAFE_INTEGER) : null;
}

/** Numbers that cannot be true (more free than there is, 4 billion percent) become null; a failing GPU tells such. */
export function plausible(sample: GpuSample): GpuSample {
  const total = count(sample.memoryTotalBytes);
  const memoryTotalBytes = total === 0 ? null : total;
  const most = memoryTotalBytes ?? Number.MAX_SAFE_INTEGER;
  return {
    ...sample,
    memoryTotalBytes,
    memoryFreeBytes: within(count(sample.memoryFreeBytes), 0, most),
    memoryUsedBytes: within(count(sample.memoryUsedBytes), 0, most),
    utilizationPercent: within(sample.utilizationPercent, 0, 100),
    temperatureC: within(sample.temperatureC, -60, 200),
    eccUncorrected: count(sample.eccUncorrected),
    powerWatts: within(sample.powerWatts, 0, 10_000),
    processes:
      sample.processes?.map(({ pid, usedBytes }) => ({ pid, usedBytes: within(count(usedBytes), 0, most) })) ?? null,
  };
}

/** `needsRepair`: why an earlier XID leaves it in need of a reset, or null. */
export function healthOf(facts: {
  readonly lost: string | null;
  readonly needsRepair: string | null;
  readonly eccUncorrected: number | null;
}): { readonly health: GpuHealth; readonly reason: string | null } {
  if (facts.lost !== null) return { health: 'lost', reason: facts.lost };
  if (facts.needsRepair !== null) return { health: 'degraded', reason: facts.needsRepair };
  if (facts.eccUncorrected !== null && facts.eccUncorrected > 0) {
    return {
      health: 'degraded',
      reason: `${facts.eccUncorrected} uncorrected memory errors since the driver was loaded`,
    };
  }
  return { health: 'ok', reason: null };
}

/**
 * `app_fault`: the process is at fault, the GPU is well. `companion`: follows another error, or a kill. `contained`: only
 * the process hit is lost. `fatal_*`: nothing on this GPU can go on before the reset or the host's reboot.
 */
export type XidClass = 'app_fault' | 'companion' | 'fatal_reset' | 'fatal_reboot' | 'contained' | 'warn';

export interface XidFacts {
  readonly xid: number;
  readonly class: XidClass;
  readonly meaning: string;
  readonly action: string;
  /** The GPU needs attention from now on, also when nothing died. */
  readonly degrades: boolean;
}

export interface XidReport extends XidFacts {
  /** Wall clock. */
  readonly atMs: number;
}

const RESTART = 'Restart the process that ran on the GPU.';
const RESET = 'End every process on the GPU and reset it (nvidia-smi --gpu-reset).';
const DRAIN_RESET = 'Keep new work off the GPU and reset it once it is empty.';
const NONE = 'Nothing by itself; see the error it came with.';
const WATCH = 'Nothing now; look closer when it comes again.';

type Row = readonly [xidClass: XidClass, meaning: string, action: string, degrades?: boolean];

/** Ampere and newer. */
const XIDS: ReadonlyMap<number, Row> = new Map<number, Row>([
  [13, ['app_fault', 'a kernel accessed memory wrongly', RESTART]],
  [31, ['app_fault', 'page fault in GPU memory', RESTART]],
  [43, ['app_fault', 'the channel of a process was reset', RESTART]],
  [45, ['companion', 'a process was cleaned up after an error or a kill', NONE]],
  [46, ['fatal_reset', 'the GPU stopped working', RESET]],
  [48, ['fatal_reset', 'double-bit memory error', RESET]],
  [61, ['fatal_reset', 'breakpoint in the GPU micro-controller', `${RESET} Contact the vendor when it comes again.`]],
  [62, ['fatal_reset', 'the GPU micro-controller halted', RESET]],
  [63, ['warn', 'a bad memory row is to be replaced', DRAIN_RESET, true]],
  [64, ['fatal_reset', 'a bad memory row could not be replaced', `${RESET} Replace the card when it comes again.`]],
  [68, ['warn', 'fault of the video processor', WATCH]],
  [74, ['warn', 'NVLink error', 'Suspect every GPU that shares work with this one; check nvidia-smi nvlink -e.', true]],
  [79, ['fatal_reboot', 'the GPU has fallen off the bus', 'Reboot the host; a reset of the GPU is not enough.']],
  [92, ['warn', 'many corrected memory errors', WATCH]],
  [94, ['contained', 'memory error confined to one process', `${RESTART} ${DRAIN_RESET}`, true]],
  [95, ['fatal_reset', 'memory error that reached every process', RESET]],
  [109, ['warn', 'a context switch timed out', WATCH]],
  [110, ['fatal_reset', 'security fault', RESET]],
  [119, ['fatal_reset', 'the GPU system processor does not answer', RESET]],
  [120, ['fatal_reset', 'error of the GPU system processor', RESET]],
  [121, ['warn', 'error on the chip-to-chip link', WATCH]],
  [137, ['warn', 'NVLink privilege error', 'Suspect every GPU that shares work with this one.']],
  [140, ['fatal_reset', 'memory error that was not recovered', RESET]],
  [143, ['fatal_reset', 'the GPU did not initialise', RESET]],
  [149, ['warn', 'NVLink network error', 'Suspect every GPU that shares work with this one.']],
  [
    154,
    ['warn', 'the driver changed what it says the GPU needs', 'Do what the kernel log names (dmesg, NVRM: Xid 154).'],
  ],
  [172, ['companion', 'details of a double-bit memory error', NONE]],
]);

const UNKNOWN: Row = ['warn', 'not in our table', 'Look it up in the XID catalog of NVIDIA.'];
const REPEATED_109: Row = ['fatal_reset', 'context switches time out again and again', RESET];

/** @param repeated the same code came from the same GPU a short while ago. */
export function classifyXid(xid: number, repeated = false): XidFacts {
  const row = xid === 109 && repeated ? REPEATED_109 : (XIDS.get(xid) ?? UNKNOWN);
  const [xidClass, meaning, action, degrades] = row;
  const fatal = xidClass === 'fatal_reset' || xidClass === 'fatal_reboot';
  return { xid, class: xidClass, meaning, action, degrades: degrades ?? fatal };
}
