/** Verification of a catalog model: the trust policy first, then its file, read whole unless it was before. */
import type { VerificationResult } from '../../core/catalog.js';
import { RefusalError } from '../../core/errors.js';
import { parseModelRef, repositoryOf } from '../../core/modelRef.js';
import type { Reason } from '../../core/pool.js';
import { judge, untrusted } from '../../core/trust.js';
import { openModelFile } from '../../host/provision/modelFile.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import type { Clock } from '../../runtime/clock.js';
import { delay } from '../../runtime/wait.js';
import { type CatalogModelRow, type StoredVerification, writeVerification } from '../../store/catalog.js';
import type { Telemetry } from '../../telemetry/events.js';
import { Locks } from '../provisioning/locks.js';
import { digestOfOpen, type VerifyDeps } from '../provisioning/verify.js';
import type { ModelFiles } from './modelFiles.js';
import type { CatalogView } from './view.js';

/** How long a caller waits for it. */
const PATIENCE_MS = 2_000;
const MAX_UNDER_WAY = 16;

export type Verified = StoredVerification;

export interface ModelVerificationDeps extends VerifyDeps {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly files: ModelFiles;
  readonly view: CatalogView;
  /** Engines of the pools that serve it. */
  readonly enginesOf: (model: CatalogModelRow) => readonly string[];
}

export class ModelVerification {
  readonly #deps: ModelVerificationDeps;
  /** One file is read by one at a time: the next finds its digest. */
  readonly #locks = new Locks();
  readonly #underWay = new Map<string, Promise<Verified>>();
  readonly #stop = new AbortController();

  constructor(deps: ModelVerificationDeps) {
    this.#deps = deps;
  }

  async stop(): Promise<void> {
    this.#stop.abort();
    await Promise.allSettled(this.#underWay.values());
  }

  /** @returns what came of it; null: it goes on. @throws RefusalError UNTRUSTED_ARTIFACT */
  async verify(model: CatalogModelRow, correlationId?: string): Promise<Verified | null> {
    const key = `${model.id} ${model.digest}`;
    const known = this.#underWay.get(key);
    if (known === undefined && this.#underWay.size >= MAX_UNDER_WAY) {
      const message = `${MAX_UNDER_WAY} models are being verified; try again when one is done`;
      throw new RefusalError({
        family: 'unavailable',
        code: 'POOL_UNAVAILABLE',
        message,
        retriable: true,
        retryAfterMs: 5_000,
      });
    }
    const work = known ?? this.#begin(key, model, correlationId);
    const verified = await orNull(work, PATIENCE_MS);
    if (verified?.result !== 'FAILED') return verified;
    const [reason] = verified.reasons;
    throw new RefusalError(untrusted('id', `model ${model.id} is not trusted: ${reason?.message ?? 'it failed'}`));
  }

  #begin(key: string, model: CatalogModelRow, correlationId: string | undefined): Promise<Verified> {
    const work = this.#verify(model, correlationId).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, work);
    work.catch((error: unknown) => {
      if (!this.#stop.signal.aborted) this.#deps.telemetry.backgroundFailure('verification of a model', error);
    });
    return work;
  }

  async #verify(model: CatalogModelRow, correlationId: string | undefined): Promise<Verified> {
    const { db, clock, view, telemetry, enginesOf } = this.#deps;
    const { findings, untrusted: distrust } = judge(model, view.policy);
    const read = await this.#read(model);
    const mismatch = read.digest !== null && read.digest !== model.digest ? [mismatchOf(model, read.digest)] : [];
    const first = [...mismatch, ...(distrust === null ? [] : [distrust])];
    const reasons = [...first, ...read.obstacles, ...findings.filter((finding) => finding !== distrust)];
    const result: VerificationResult =
      first.length > 0 ? 'FAILED' : read.digest === null ? 'UNREADABLE' : reasons.length > 0 ? 'WARNED' : 'PASSED';
    const verified = { result, reasons, digest: read.digest, atMs: clock.nowMs() };
    await writeVerification(db, model, verified);
    await view.refresh();
    telemetry.modelVerified({ modelId: model.id, correlationId }, verified, enginesOf(model));
    return verified;
  }

  /** @returns what the file is, or why it could not be read. */
  async #read(model: CatalogModelRow): Promise<{ digest: string | null; obstacles: readonly Reason[] }> {
    const { files } = this.#deps;
    const path = files.sourcePath(model) ?? files.cachePath(model);
    const remote = files.sourcePath(model) === null;
    try {
      const digest = await this.#locks.run(path, this.#stop.signal, () => this.#digest(path));
      return { digest: `sha256:${digest}`, obstacles: [] };
    } catch (error) {
      if (!(error instanceof ProvisionError)) throw error;
      const missing = remote && error.reason.code === 'MODEL_MISSING';
      return { digest: null, obstacles: [missing ? notHere(model) : error.reason] };
    }
  }

  async #digest(path: string): Promise<string> {
    const open = await openModelFile(path, this.#deps.files.readable);
    try {
      return await digestOfOpen(this.#deps, open, { signal: this.#stop.signal, say: () => {} });
    } finally {
      await open.file.close();
    }
  }
}

function mismatchOf({ digest }: CatalogModelRow, found: string): Reason {
  return {
    code: 'DIGEST_MISMATCH',
    message: `its file has ${found}, the catalog names ${digest}`,
    fix: 'Replace the file, which is damaged or another one; or register the model under the digest that you mean.',
  };
}

function notHere({ sourceUrl }: CatalogModelRow): Reason {
  if (sourceUrl === null) {
    const fix = 'Register it with a source_url, or put the file into the model cache under its digest.';
    return { code: 'NO_SOURCE', message: 'nothing says where its file is', fix };
  }
  if (repositoryOf(sourceUrl) !== null) {
    const fix = 'Name one file in it, where the engine reads files: hf:organisation/repository/file.';
    return { code: 'NO_SOURCE', message: 'its source is a whole repository, which has no one digest', fix };
  }
  const { kind } = parseModelRef(sourceUrl);
  return { code: 'NOT_STAGED', message: `its ${kind}: source has not been brought here`, fix: 'Stage it first.' };
}

/** Rejects as the work does; null when that takes longer. */
async function orNull<T>(work: Promise<T>, ms: number): Promise<T | null> {
  const over = new AbortController();
  try {
    return await Promise.race([work, delay(ms, over.signal).then(() => null)]);
  } finally {
    over.abort();
  }
}
