/** A fake nvidia-smi and a fake NVML, each with its state in a folder of its own. */
import { execFile } from 'node:child_process';
import { copyFile, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { fixture, temporaryFolder } from './support.js';

const run = promisify(execFile);
export const MIB = 1024 * 1024;

export interface SmiBehaviour {
  readonly gpus?: readonly Readonly<Record<string, string>>[];
  /** Processes; null: this nvidia-smi cannot list them. */
  readonly apps?: readonly Readonly<Record<string, string>>[] | null;
  readonly unknownFields?: readonly string[];
  readonly print?: string;
  readonly exitCode?: number;
  readonly hang?: boolean;
  readonly waitFor?: string;
  readonly newline?: string;
}

export function fakeGpu(index: number): Record<string, string> {
  return {
    index: String(index),
    uuid: `GPU-0000000${index}-fake`,
    'memory.total': '24576',
    'memory.free': '20000',
    'memory.used': '4200',
    'utilization.gpu': '37',
    'temperature.gpu': '55',
    'power.draw': '61.23',
    compute_cap: '8.6',
    'ecc.errors.uncorrected.volatile.total': '0',
    'mig.mode.current': 'Disabled',
    name: 'NVIDIA RTX 3090, Fake',
  };
}

export function fakeApp(index: number, pid: number, mib: number | null): Record<string, string> {
  return {
    pid: String(pid),
    gpu_uuid: `GPU-0000000${index}-fake`,
    used_memory: mib === null ? '[N/A]' : String(mib),
  };
}

export interface FakeNvidiaSmi {
  readonly file: string;
  readonly folder: string;
  set(behaviour: SmiBehaviour): Promise<void>;
  /** Arguments of the runs so far. */
  calls(): Promise<readonly string[]>;
}

/** Write and rename: a reader never sees half a file. */
async function replaceFile(folder: string, name: string, text: string): Promise<void> {
  await writeFile(join(folder, `${name}.new`), text);
  await rename(join(folder, `${name}.new`), join(folder, name));
}

export async function fakeNvidiaSmi(behaviour: SmiBehaviour): Promise<FakeNvidiaSmi> {
  const folder = await temporaryFolder();
  const script = join(folder, 'fakeNvidiaSmi.mjs');
  await copyFile(fixture('fakeNvidiaSmi.mjs'), script);
  await run('chmod', ['755', script]);
  const file = join(folder, 'nvidia-smi');
  await symlink(script, file);
  const set = (next: SmiBehaviour): Promise<void> => replaceFile(folder, 'behaviour.json', JSON.stringify(next));
  await set(behaviour);
  const calls = async (): Promise<readonly string[]> => {
    const log = await readFile(join(folder, 'calls.log'), 'utf8').catch(() => '');
    return log.split('\n').filter((line) => line !== '');
  };
  return { file, folder, set, calls };
}

/** False where nothing compiles C, so a fake NVML cannot be made. */
export const hasCompiler = await run('cc', ['--version']).then(
  () => true,
  () => false,
);

export interface NvmlGpu {
  /** What the driver answers when asked for this GPU's memory. */
  readonly code?: number;
  readonly freeMib?: number;
  readonly ecc?: number;
  /** pid → MiB; null: the driver does not say how much. */
  readonly processes?: Readonly<Record<number, number | null>>;
}

export interface FakeNvml {
  readonly library: string;
  gpu(index: number, state: NvmlGpu): Promise<void>;
  removeGpu(index: number): Promise<void>;
  xid(index: number, xid: number): Promise<void>;
  init(code: number): Promise<void>;
  hang(on: boolean): Promise<void>;
}

export async function fakeNvml(gpus: number, options: { readonly oldDriver?: boolean } = {}): Promise<FakeNvml> {
  const folder = await temporaryFolder();
  const library = join(folder, 'libnvidia-ml.so.1');
  const variant = options.oldDriver === true ? ['-DOLD_DRIVER'] : [];
  await run('cc', ['-shared', '-fPIC', '-O1', `-DSTATE="${folder}"`, ...variant, '-o', library, fixture('fakeNvml.c')]);
  const put = (name: string, text: string): Promise<void> => replaceFile(folder, name, text);
  const gpu = async (index: number, { code = 0, freeMib = 20_000, ecc = 0, processes = {} }: NvmlGpu) => {
    const list = Object.entries(processes).map(([pid, mib]) => `${pid} ${mib === null ? -1 : mib * MIB}\n`);
    await put(`processes${index}`, list.join(''));
    await put(`gpu${index}`, `${code} ${24_576 * MIB} ${freeMib * MIB} ${4200 * MIB} 37 55 ${ecc}\n`);
  };
  for (let index = 0; index < gpus; index += 1) await gpu(index, {});
  return {
    library,
    gpu,
    removeGpu: (index) => rm(join(folder, `gpu${index}`)),
    xid: (index, xid) => put('xid', `${index} ${xid}\n`),
    init: (code) => put('init', `${code}\n`),
    hang: (on) => (on ? put('hang', '') : rm(join(folder, 'hang'))),
  };
}
