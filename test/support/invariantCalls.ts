/** What engines were asked to do for tasks, as they wrote it down themselves: what dies with an engine is no witness. */
import { readFileSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { endsWithFile } from './lifetimes.js';

const PRELOAD = fileURLToPath(new URL('../chaos/fixtures/engineCalls.mjs', import.meta.url));

export interface CallLog {
  /** For `provisioning.env` of simulated pools. */
  readonly env: Readonly<Record<string, string>>;
  readonly began: () => readonly string[];
}

/** Until the end of the test file. @param imports what engines `--import` besides. */
export async function logCalls(...imports: readonly string[]): Promise<CallLog> {
  const folder = await mkdtemp(join(tmpdir(), 'llama-orch-calls-'));
  endsWithFile({ end: () => rm(folder, { recursive: true, force: true }), kill: () => {} });
  const file = join(folder, 'calls');
  await writeFile(file, '');
  const options = [PRELOAD, ...imports].map((path) => `--import=${path}`).join(' ');
  return {
    env: { NODE_OPTIONS: options, ENGINE_CALLS: file },
    began: () =>
      readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== ''),
  };
}
