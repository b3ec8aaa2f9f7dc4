/** What a failed scenario leaves behind: a folder with all that could be seen of it from outside. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Scenario } from './scenario.js';
import { eachPool, showTask } from './shows.js';

const ROOT = '.proof';
const POOLS = `live ready draining activeLeases queue { depth } operation { kind state }
  lastError { code message fix } notReadyBecause { code message fix }
  replicas { name state health breaker restartCount preload { name state detail startedAt endedAt }
    lastError { code message fix } lastCrash { fault message exitCode signal lastLines } }`;
const EVENTS = 'events(first: 100) { edges { node { at kind message detail replica { name } } } }';
const LOGS = 'replicas { name logs(lines: 70) { text } }';

function slug(text: string): string {
  return text
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .toLowerCase()
    .slice(0, 120);
}

/** The folder of a scenario: `.proof/FEATURE/SCENARIO`. */
export function proofFolder(feature: string, scenario: string): string {
  return join(ROOT, slug(feature.replace(/^Feature: /, '')), slug(scenario));
}

/** What cannot be had any more is told in its place: half a bundle is better than none. */
async function orWhyNot(read: () => Promise<string> | string): Promise<string> {
  try {
    return await read();
  } catch (error) {
    return `not available: ${String(error)}\n`;
  }
}

function json(value: unknown): string {
  return `${JSON.stringify(value, null, 2)}\n`;
}

/** Of every task that it named; null where there is none. */
async function tasksOf(scenario: Scenario): Promise<string> {
  const { doors } = scenario;
  const asked = [...scenario.taskIds()].map(async ([name, id]) => [name, id, await showTask(doors, id)] as const);
  return json((await Promise.all(asked)).map(([name, id, task]) => ({ name, id, task })));
}

function settingOf({ plane }: Scenario): string {
  const { config, env } = plane.setting;
  return json({ environment: env, configuration: readOrText(config) });
}

/** JSON is easier to read with lines; YAML has them. */
function readOrText(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text.split('\n');
  }
}

export async function writeProof(scenario: Scenario): Promise<void> {
  const { feature, scenario: name, errors, step, line } = scenario.info;
  const folder = proofFolder(feature, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  // Before the questions below are in it too.
  const transcript = json(scenario.transcript);
  const files = {
    'failure.txt': () => `${feature}\n${name}\nline ${line}: ${step}\n\n${errors.map(messageOf).join('\n\n')}\n`,
    'transcript.json': () => transcript,
    'setting.json': () => settingOf(scenario),
    'log.jsonl': () => `${scenario.logLines().join('\n')}\n`,
    'pools.json': async () => json(await eachPool(scenario.doors, POOLS)),
    'events.json': async () => json(await eachPool(scenario.doors, EVENTS)),
    'engineLogs.json': async () => json(await eachPool(scenario.doors, LOGS)),
    'tasks.json': () => tasksOf(scenario),
    'metrics.txt': async () => (await scenario.doors.metrics()).text,
    'metricsBefore.txt': () => scenario.metricsBefore.text,
  };
  for (const [file, read] of Object.entries(files)) await writeFile(join(folder, file), await orWhyNot(read));
  console.error(`the proof of the failure lies in ${folder}`);
}

/** What an earlier run left says nothing about one that passed. */
export async function removeProof({ info }: Scenario): Promise<void> {
  await rm(proofFolder(info.feature, info.scenario), { recursive: true, force: true });
}

function messageOf(error: unknown): string {
  // Quickpickle leaves the message out of the stack.
  return error instanceof Error ? `${error.message}\n${error.stack ?? ''}` : String(error);
}
