/** The hosts that the submodules of a clone would be fetched from. */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { egressRefusal } from '../../core/egress.js';
import { programEnvironment } from './program.js';
import { ProvisionError } from './provisionError.js';

const READ_DEADLINE_MS = 30_000;
const MAX_LIST_BYTES = 1024 * 1024;
/** Of git: no such key. */
const NONE_FOUND = 1;

/**
 * Throws ProvisionError for a submodule from where policy does not allow. They have to be set up already (`git submodule
 * init`): then git itself says where each comes from, as it will fetch it.
 * @param clone `git`: absolute path of the program; `at`: folder of the clone; `repo`: where the clone came from.
 */
export async function checkSubmodules(
  clone: { readonly git: string; readonly at: string; readonly repo: string },
  allowHosts: readonly string[],
  signal: AbortSignal,
): Promise<void> {
  const { repo } = clone;
  for (const url of await submoduleUrls(clone, signal)) {
    // Who clones from this machine may take the rest from it too.
    if (url.startsWith('file:///') && repo.startsWith('file:')) continue;
    const refusal = URL.canParse(url) && !url.startsWith('file:') ? egressRefusal(new URL(url), allowHosts) : undefined;
    if (refusal === null) continue;
    const message = refusal?.message ?? `a submodule of ${repo} comes from ${url}, which is no https URL`;
    throw new ProvisionError('POLICY_REFUSED', message, refusal?.fix ?? 'Set provisioning.source.submodules: false.');
  }
}

async function submoduleUrls(
  { git, at }: { readonly git: string; readonly at: string },
  signal: AbortSignal,
): Promise<readonly string[]> {
  const args = ['-C', at, 'config', '--local', '-z', '--get-regexp', '^submodule\\..*\\.url$'];
  const limits = { timeout: READ_DEADLINE_MS, maxBuffer: MAX_LIST_BYTES, killSignal: 'SIGKILL', signal } as const;
  try {
    const { stdout } = await promisify(execFile)(git, args, { ...limits, env: programEnvironment() });
    const entries = stdout.split('\0').filter((entry) => entry !== '');
    return entries.map((entry) => entry.slice(entry.indexOf('\n') + 1));
  } catch (error) {
    signal.throwIfAborted();
    if (error instanceof Error && 'code' in error && error.code === NONE_FOUND) return [];
    const message = `the submodules of ${at} could not be listed: ${error instanceof Error ? error.message : String(error)}`;
    throw new ProvisionError('PROGRAM_FAILED', message, `Look at it: ${git} ${args.join(' ')}`, { cause: error });
  }
}
