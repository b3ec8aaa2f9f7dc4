/**
 * Engines as processes: what befalls them, such as a kill or a fault, is done to the process itself. The control plane
 * tells its number; its port stands in its command line. The switchboard of the simulator is asked here and nowhere else.
 */
import { readFileSync } from 'node:fs';
import { eventually } from './eventually.js';
import type { Scenario } from './scenario.js';
import { showReplica } from './shows.js';

const ANSWER_MS = 10_000;

export interface Engine {
  readonly pid: number;
  readonly endpoint: string;
}

interface Shown {
  readonly state: string;
  readonly preload: readonly { readonly name: string; readonly detail: string | null }[];
}

/** The process number of the engine that serves; null while none does. */
export async function servingPid(scenario: Scenario, replica: string): Promise<number | null> {
  const shown = (await showReplica(scenario.doors, replica)) as Shown | null;
  if (shown === null) throw new Error(`there is no replica ${replica}`);
  const started = shown.preload.find(({ name }) => name === 'start_engine')?.detail ?? '';
  const pid = /^process (\d+)$/.exec(started)?.[1];
  return shown.state === 'READY' && pid !== undefined ? Number(pid) : null;
}

/** The engine of a replica, once it serves. */
export async function engineOf(scenario: Scenario, replica: string): Promise<Engine> {
  let pid: number | null = null;
  const look = async () => {
    pid = await servingPid(scenario, replica);
    return pid;
  };
  await eventually(look, { message: `${replica} has an engine that serves` }).not.toBeNull();
  if (pid === null) throw new Error(`${replica} has no engine`);
  const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0');
  return { pid, endpoint: `http://127.0.0.1:${words[words.indexOf('--port') + 1]}` };
}

/** Faults from now on; `none` ends them. */
export async function setFault({ endpoint }: Engine, fault: string): Promise<void> {
  const response = await control(endpoint, { method: 'POST', body: JSON.stringify({ fault: [fault] }) });
  if (!response.ok) throw new Error(`the simulator answered ${response.status}: ${await response.text()}`);
}

/** Slots that decode something now, as the engine itself counts them. */
export async function busySlotsOf({ endpoint }: Engine): Promise<number> {
  return ((await (await control(endpoint)).json()) as { busySlots: number }).busySlots;
}

function control(endpoint: string, init: RequestInit = {}): Promise<Response> {
  const headers = { 'content-type': 'application/json' };
  return fetch(`${endpoint}/sim/control`, { headers, ...init, signal: AbortSignal.timeout(ANSWER_MS) });
}
