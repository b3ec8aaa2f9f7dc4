/** What a failed scenario leaves behind: a folder with all that could be seen of it from outside. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Scenario } from './scenario.js';

const ROOT = '.proof';
const EVENTS = `{ pools { name ready notReadyBecause { code message }
  events(first: 100) { edges { node { at kind message detail replica { name } } } } } }`;

function slug(text: string): string {
  return text
    .replace(/[^A-Za-z0-9]+/g, '-')
    .replace(/^-|-$/g, '')
    .toLowerCase()
    .slice(0, 80);
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

export async function writeProof(scenario: Scenario): Promise<void> {
  const { feature, scenario: name, errors, step, line } = scenario.info;
  const folder = proofFolder(feature, name);
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const files = {
    'failure.txt': () => `${feature}\n${name}\nline ${line}: ${step}\n\n${errors.map(messageOf).join('\n\n')}\n`,
    'transcript.json': () => `${JSON.stringify(scenario.doors.records(), null, 2)}\n`,
    'events.json': async () => `${JSON.stringify(await scenario.doors.graphql(EVENTS), null, 2)}\n`,
    'log.jsonl': () => scenario.logLines().join(''),
    'metrics.txt': async () => String((await scenario.doors.rest('GET', '/metrics')).body),
  };
  for (const [file, read] of Object.entries(files)) await writeFile(join(folder, file), await orWhyNot(read));
  console.error(`the proof of the failure lies in ${folder}`);
}

function messageOf(error: unknown): string {
  // Quickpickle leaves the message out of the stack.
  return error instanceof Error ? `${error.message}\n${error.stack ?? ''}` : String(error);
}
