/** Whether a container runtime has an image. */
import type { PreparedFacts } from '../../core/provision/plan.js';
import { type ProgramSpec, runForExitCode } from './program.js';
import { ProvisionError } from './provisionError.js';

const LOOK_DEADLINE_MS = 60_000;

/** Rejects with a ProvisionError when the runtime does not say, which is no reason to pull; or with the signal's reason. */
export async function hasImage(
  { name, path }: NonNullable<PreparedFacts['runtime']>,
  image: string,
  run: Pick<ProgramSpec, 'cwd' | 'logFile' | 'signal'>,
): Promise<boolean> {
  const ask = async (...args: readonly string[]): Promise<number | null> =>
    // Without the mark: podman leaves a helper behind that all later containers of this user share.
    runForExitCode({ ...run, mark: null, deadlineMs: LOOK_DEADLINE_MS, argv: [path, ...args] });
  const silent = (asked: string, code: number | null): ProvisionError => {
    const message = `${path} ${asked} ${code === null ? 'was ended by a signal' : `ended with code ${code}`}`;
    const fix = `See whether ${name} works for this user: ${path} ${asked}. Its words are in ${run.logFile}.`;
    return new ProvisionError('CONTAINER_RUNTIME_DOWN', message, fix);
  };
  if (name === 'podman') {
    const code = await ask('image', 'exists', image);
    if (code === 0 || code === 1) return code === 0;
    throw silent(`image exists ${image}`, code);
  }
  // Docker's client tells neither an absent image nor an absent daemon apart by its code; the version is the daemon's.
  const up = await ask('version', '--format', '{{.Server.Version}}');
  if (up !== 0) throw silent('version', up);
  return (await ask('image', 'inspect', '--format', 'ok', image)) === 0;
}
