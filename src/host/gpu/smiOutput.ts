/** What nvidia-smi prints, made into a poll. Its text is not a stable interface, so nothing in it is taken on trust. */
import { type GpuPoll, type GpuProcess, type GpuSample, type LostGpu, plausible } from '../../core/gpu.js';

export const SMI_REQUIRED_FIELDS = [
  'index',
  'uuid',
  'memory.total',
  'memory.free',
  'memory.used',
  'utilization.gpu',
  'temperature.gpu',
] as const;
/** Unknown to old drivers. */
export const SMI_OPTIONAL_FIELDS = [
  'power.draw',
  'compute_cap',
  'ecc.errors.uncorrected.volatile.total',
  'mig.mode.current',
] as const;
/** Of each process, by a command of its own. */
export const SMI_PROCESS_FIELDS = ['pid', 'gpu_uuid', 'used_memory'] as const;
/** Asked for last, because it alone may hold commas. */
export const SMI_NAME_FIELD = 'name';

export interface SmiRun {
  readonly failure: 'missing' | 'not_runnable' | 'timeout' | 'too_long' | 'busy' | 'closed' | null;
  /** null: ended by a signal, or never started. */
  readonly exitCode: number | null;
  readonly output: string;
}

const MIB = 1024 * 1024;
const GPU_UUID = /^GPU-[\w-]{4,64}$/;
const MAX_GPUS = 256;
const MAX_PROCESSES = 1024;
const CHECK_FIX = 'Check that `nvidia-smi` works; or choose `gpu.mode: simulated` in the configuration.';
const HANG_FIX =
  'The driver hangs, as a rule: look for an Xid in the kernel log (dmesg), reset the GPU or reboot the host.';

const FAILURES = {
  missing: [
    'nvidia-smi is not installed, so there is no usable NVIDIA GPU',
    'Install the NVIDIA driver and check `nvidia-smi`; or choose `gpu.mode: simulated` in the configuration.',
  ],
  not_runnable: ['nvidia-smi could not be started', CHECK_FIX],
  timeout: ['nvidia-smi did not answer in time', HANG_FIX],
  too_long: ['nvidia-smi printed far more than a list of GPUs', CHECK_FIX],
  busy: ['an nvidia-smi that was killed has not ended yet', HANG_FIX],
  closed: ['the GPU inventory is closed', 'Nothing: this program is stopping.'],
} as const;

export function parseSmiOutput(
  output: string,
  fields: readonly string[],
): { readonly samples: readonly GpuSample[]; readonly lost: readonly LostGpu[] } {
  const samples = new Map<string, GpuSample>();
  const lost: LostGpu[] = [];
  for (const line of output.split('\n')) {
    if (samples.size + lost.length >= MAX_GPUS) break;
    const row = rowOf(line, fields);
    if (row === null) continue;
    if ('reason' in row) lost.push(row);
    else if (!samples.has(row.uuid)) samples.set(row.uuid, row);
  }
  return { samples: [...samples.values()], lost };
}

function rowOf(line: string, fields: readonly string[]): GpuSample | LostGpu | null {
  const cells = line.split(',').map((cell) => cell.trim());
  const cell = (field: string): string => cells[fields.indexOf(field)] ?? '';
  if (cells.length < fields.length || !/^\d{1,4}$/.test(cell('index'))) return null;
  const index = Number(cell('index'));
  const uuid = GPU_UUID.test(cell('uuid')) ? cell('uuid') : null;
  const broken = cells.find((text) => /GPU is lost|requires reset/i.test(text));
  if (broken !== undefined) return { uuid, index, reason: `nvidia-smi says ${short(broken)}` };
  if (uuid === null) {
    return cell('uuid') === '[Unknown Error]' ? { uuid, index, reason: 'nvidia-smi cannot read it' } : null;
  }
  return plausible({
    uuid,
    index,
    name: short(cells.slice(fields.length - 1).join(', ')),
    memoryTotalBytes: mibOf(cell('memory.total')),
    memoryFreeBytes: mibOf(cell('memory.free')),
    memoryUsedBytes: mibOf(cell('memory.used')),
    utilizationPercent: numberOf(cell('utilization.gpu')),
    temperatureC: numberOf(cell('temperature.gpu')),
    eccUncorrected: numberOf(cell('ecc.errors.uncorrected.volatile.total')),
    powerWatts: numberOf(cell('power.draw')),
    computeCapability: /^\d+\.\d+$/.test(cell('compute_cap')) ? cell('compute_cap') : null,
    migEnabled: switchOf(cell('mig.mode.current')),
    processes: null,
  });
}

/** Processes by the uuid of their GPU; null: the run failed. */
export function processesOfRun(run: SmiRun): ReadonlyMap<string, readonly GpuProcess[]> | null {
  if (run.failure !== null || run.exitCode !== 0) return null;
  const processes = new Map<string, GpuProcess[]>();
  for (const line of run.output.split('\n').slice(0, MAX_PROCESSES)) {
    const [pid = '', uuid = '', used = ''] = line.split(',').map((cell) => cell.trim());
    if (!/^[1-9]\d{0,9}$/.test(pid) || !GPU_UUID.test(uuid)) continue;
    const list = processes.get(uuid) ?? [];
    list.push({ pid: Number(pid), usedBytes: mibOf(used) });
    processes.set(uuid, list);
  }
  return processes;
}

export function withProcesses(poll: GpuPoll, processes: ReturnType<typeof processesOfRun>): GpuPoll {
  if (!poll.ok || processes === null) return poll;
  const samples = poll.samples.map((sample) => plausible({ ...sample, processes: processes.get(sample.uuid) ?? [] }));
  return { ...poll, samples };
}

function numberOf(text: string): number | null {
  return /^-?\d{1,15}(\.\d{1,6})?$/.test(text) ? Number(text) : null;
}

function mibOf(text: string): number | null {
  const mib = numberOf(text);
  return mib === null ? null : mib * MIB;
}

function switchOf(text: string): boolean | null {
  if (text === 'Enabled') return true;
  return text === 'Disabled' ? false : null;
}

function short(text: string): string {
  return text.replace(/\p{Cc}+/gu, ' ').slice(0, 200);
}

export function isUnknownField(run: SmiRun): boolean {
  return run.failure === null && run.exitCode !== 0 && /is not a valid field to query/i.test(run.output);
}

export function pollOfRun(run: SmiRun, fields: readonly string[]): GpuPoll {
  if (run.failure !== null) {
    const [message, fix] = FAILURES[run.failure];
    return { ok: false, message, fix, driverGone: false };
  }
  const { samples, lost } = parseSmiOutput(run.output, fields);
  // One dead GPU makes some versions end with an error after the others were listed, and name it in words alone.
  const namesDead = /Unable to determine the device handle|GPU is lost/i.test(run.output);
  if (samples.length + lost.length > 0) {
    return { ok: true, samples, lost, complete: run.exitCode === 0 || namesDead };
  }
  if (/No devices were found/i.test(run.output)) return { ok: true, samples: [], lost: [], complete: true };
  return complaint(run);
}

function complaint(run: SmiRun): GpuPoll {
  const line = run.output.split('\n').find((text) => text.trim() !== '');
  const said = line === undefined ? 'printed nothing' : `said: ${short(line.trim())}`;
  const ended = run.exitCode === null ? 'was ended by a signal' : `ended with code ${run.exitCode}`;
  return {
    ok: false,
    message: run.exitCode === 0 ? `nvidia-smi lists no usable GPU; it ${said}` : `nvidia-smi ${ended} and ${said}`,
    fix: CHECK_FIX,
    driverGone: /couldn't communicate with the NVIDIA driver|version mismatch|driver (is )?not loaded/i.test(
      run.output,
    ),
  };
}
