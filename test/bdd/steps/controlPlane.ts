/** What a scenario begins with: a host, its environment, and a control plane with pools. */
import { createHash } from 'node:crypto';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parse } from 'yaml';
import { type FakeNvidiaSmi, fakeGpu, fakeNvidiaSmi } from '../../host/gpuSupport.js';
import { cleanUp } from '../../host/support.js';
import { tinyModelBytes } from '../../support/tinyModel.js';
import { eventually } from '../eventually.js';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';

/** The driver of the host of a scenario; a stand-in for nvidia-smi, asked as the real one is. */
const drivers = new WeakMap<Scenario, FakeNvidiaSmi>();

step(/^the environment:$/, (scenario, table: StepData) => {
  for (const [name = '', value = ''] of table.raw()) scenario.env[name] = value;
});

/** YAML of a section of its configuration. */
step(/^the section "(\w+)":$/, (scenario, name: string, text: StepData) => {
  scenario.sections[name] = parse(scenario.filled(text.toString()));
});

/** In a folder of its own. */
step(/^a model file "([\w.]+)"$/, async (scenario, name: string) => {
  const folder = await mkdtemp(join(tmpdir(), 'llama-orch-bdd-'));
  scenario.later(() => rm(folder, { recursive: true, force: true }));
  const path = join(folder, name);
  const bytes = tinyModelBytes();
  await writeFile(path, bytes);
  scenario.addFile(name, { path, folder, digest: `sha256:${createHash('sha256').update(bytes).digest('hex')}` });
});

step(/^a control plane with the pools:$/, (scenario, table: StepData) => scenario.enter(table));

step(
  /^the control plane is stopped, and one is started over its database with the pools:$/,
  (scenario, table: StepData) => scenario.startAnew(table),
);

/** Pools that are not simulated: YAML as an operator writes it. */
step(/^a control plane configured as:$/, async (scenario, text: StepData) => {
  await scenario.enterConfigured({ configuration: { text: text.toString(), becomeReady: [] }, own: true });
});

async function useDriver(scenario: Scenario, behaviour: Parameters<typeof fakeNvidiaSmi>[0]): Promise<void> {
  const smi = await fakeNvidiaSmi(behaviour);
  scenario.later(cleanUp);
  scenario.env.PATH = `${dirname(smi.file)}:${process.env.PATH}`;
  scenario.env.LLAMA_ORCH_NVML_LIBRARY = '/nowhere/libnvidia-ml.so';
  drivers.set(scenario, smi);
  scenario.sections.gpu = { mode: 'nvidia' };
  scenario.hasOwnHost = true;
}

const DRIVERS = {
  'whose driver finds no GPU': { print: 'No devices were found\n', exitCode: 6 },
  'with two GPUs': { gpus: [fakeGpu(0), fakeGpu(1)] },
};

step(/^a host (whose driver finds no GPU|with two GPUs)$/, (scenario, kind: keyof typeof DRIVERS) =>
  useDriver(scenario, DRIVERS[kind]),
);

function driverOf(scenario: Scenario): FakeNvidiaSmi {
  const smi = drivers.get(scenario);
  if (smi === undefined) throw new Error('the scenario has no host with GPUs');
  return smi;
}

step(/^GPU 0 (falls off the bus|is back)$/, async (scenario, how: string) => {
  const lost = { 'memory.total': '[GPU is lost]', 'memory.free': '[GPU is lost]' };
  const first = { ...fakeGpu(0), ...(how === 'is back' ? {} : lost) };
  await driverOf(scenario).set({ gpus: [first, fakeGpu(1)] });
});

/** Long enough to be seen: what asks it finds no driver at least once. */
step(/^the driver is reset$/, async (scenario) => {
  const smi = driverOf(scenario);
  await smi.set({ print: "it couldn't communicate with the NVIDIA driver\n", exitCode: 9 });
  const before = (await smi.calls()).length;
  await eventually(async () => (await smi.calls()).length).toBeGreaterThanOrEqual(before + 2);
  await smi.set({ gpus: [fakeGpu(0), fakeGpu(1)] });
});
