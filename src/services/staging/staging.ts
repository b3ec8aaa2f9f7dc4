/** Stagings of catalog models into this node's cache: begun, followed, cancelled, and each in a row that tells of it. */
import { randomUUID } from 'node:crypto';
import { egressRefusal } from '../../core/egress.js';
import { invalid, notFound, type Refusal, RefusalError, unavailable } from '../../core/errors.js';
import { isUuid } from '../../core/ids.js';
import type { Reason } from '../../core/pool.js';
import { judge, untrusted } from '../../core/trust.js';
import { sweepPartFiles } from '../../host/provision/partFiles.js';
import { ProvisionError } from '../../host/provision/provisionError.js';
import type { Clock } from '../../runtime/clock.js';
import { Reconciler } from '../../runtime/reconciler.js';
import { delay } from '../../runtime/wait.js';
import {
  beginStaging,
  closeInterrupted,
  endStaging,
  requestCancel,
  type StagingProgress,
  stagingUnderWay,
  writeProgress,
} from '../../store/stagings.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { CatalogView } from '../catalog/view.js';
import { Locks } from '../provisioning/locks.js';
import { fetchUrl, type StageDeps, type Staged, type StageModel, stageModel } from './stage.js';

const PROGRESS_EVERY_MS = 500;
const SWEEP_EVERY_MS = 10_000;
const PARTS_SWEPT_EVERY_MS = 3_600_000;
const MAX_AT_ONCE = 4;
/** How long a cancel waits for the end of what it cancels. */
const CANCEL_PATIENCE_MS = 10_000;

const INTERRUPTED: Reason = {
  code: 'INTERRUPTED',
  message: 'The control plane stopped while this was running.',
  fix: 'Stage it again: what was downloaded is gone on with.',
};
const TOO_MANY: Refusal = unavailable(
  'POOL_UNAVAILABLE',
  `${MAX_AT_ONCE} models are being staged; try again when one is done`,
  10_000,
);
/** Why a run ends that nobody wants any more. */
const CANCELED = new DOMException('the staging was cancelled', 'AbortError');

export interface StagingDeps extends StageDeps {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly view: CatalogView;
}

/** What is staged, and the request that asked for it first. */
interface StageOrder {
  readonly model: StageModel;
  readonly correlationId: string | undefined;
}

interface Run {
  readonly abort: AbortController;
  readonly ended: Promise<void>;
}

export class Staging {
  readonly #deps: StagingDeps;
  readonly #runs = new Map<string, Run>();
  readonly #locks = new Locks();
  readonly #sweep: Reconciler;
  readonly #partSweep: Reconciler;

  constructor(deps: StagingDeps) {
    this.#deps = deps;
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    this.#sweep = new Reconciler({
      name: 'stagings',
      intervalMs: SWEEP_EVERY_MS,
      run: () => closeInterrupted(deps.db, deps.nodeId, (id) => this.#runs.has(id), INTERRUPTED),
      onError,
    });
    this.#partSweep = new Reconciler({
      name: 'unfinished downloads',
      intervalMs: PARTS_SWEPT_EVERY_MS,
      run: () => sweepPartFiles(deps.files.folder, deps.clock.nowMs()),
      onError,
    });
  }

  /** Ends the rows of what an earlier life of this node was doing, and removes what nobody goes on with. */
  start(): void {
    this.#sweep.start();
    this.#partSweep.start();
  }

  /** What is under way ends as interrupted; what it has downloaded stays. */
  async stop(): Promise<void> {
    await this.#sweep.stop();
    await this.#partSweep.stop();
    for (const { abort } of this.#runs.values()) abort.abort(new DOMException('llama-orch stops', 'AbortError'));
    await Promise.all([...this.#runs.values()].map(({ ended }) => ended));
  }

  /**
   * Begins to bring a model here; one that is under way already is not begun twice.
   * @returns the id of the staging, which goes on by itself. @throws RefusalError for what no waiting can mend.
   */
  async stage(model: StageModel, correlationId?: string): Promise<string> {
    const refusal = this.#refusal(model);
    if (refusal !== null) throw new RefusalError(refusal);
    const { db, nodeId } = this.#deps;
    if (this.#runs.size >= MAX_AT_ONCE) {
      const running = await stagingUnderWay(db, model.id, nodeId);
      if (running !== null) return running;
      throw new RefusalError(TOO_MANY);
    }
    const fresh = randomUUID();
    // Known before its row is there: the sweep ends rows that are nobody's.
    const abort = new AbortController();
    const begin = beginStaging(db, fresh, model.id, nodeId);
    const ended = begin.then((id) => (id === fresh ? this.#run(id, { model, correlationId }, abort) : undefined));
    const settled = ended.catch(() => {}).finally(() => this.#runs.delete(fresh));
    this.#runs.set(fresh, { abort, ended: settled });
    return begin;
  }

  /** Resolves when it has ended, or its node has been told. @throws RefusalError not_found */
  async cancel(id: string): Promise<void> {
    const row = isUuid(id) ? await requestCancel(this.#deps.db, id.toLowerCase()) : null;
    if (row === null) throw new RefusalError(notFound('id', `staging ${id} not found`));
    const run = this.#runs.get(id.toLowerCase());
    if (run === undefined) return;
    run.abort.abort(CANCELED);
    const ended = new AbortController();
    void run.ended.then(() => ended.abort());
    await delay(CANCEL_PATIENCE_MS, ended.signal);
  }

  #refusal(model: StageModel): Refusal | null {
    const { view, files, allowHosts } = this.#deps;
    const { untrusted: reason } = judge(model, view.policy);
    if (reason !== null) return untrusted('id', `model ${model.id} is not trusted: ${reason.message}`);
    if (model.sourceUrl === null) return invalid('source_url', `model ${model.id} was registered without one`);
    if (files.sourcePath(model) === null) {
      const from = fetchUrl(model.sourceUrl);
      if ('refused' in from) return invalid('source_url', from.refused);
      const policy = egressRefusal(new URL(from.url), allowHosts);
      if (policy !== null) return invalid('source_url', `${policy.message}; ${policy.fix}`);
    }
    return null;
  }

  /** Resolves when its row says how it ended, or cannot be told. */
  async #run(id: string, order: StageOrder, abort: AbortController): Promise<void> {
    const { signal } = abort;
    const { model } = order;
    const progress: Writable<StagingProgress> = { receivedBytes: 0, totalBytes: null, detail: 'waits for its turn' };
    const over = new AbortController();
    const telling = this.#tell(id, progress, over.signal, abort);
    const run = {
      signal,
      say: (detail: string) => void Object.assign(progress, { detail }),
      onBytes: (receivedBytes: number, totalBytes: number | null) =>
        void Object.assign(progress, { receivedBytes, totalBytes }),
    };
    try {
      const staged = await this.#locks.run(model.digest, signal, () => stageModel(this.#deps, model, run));
      await this.#end(id, order, staged);
    } catch (error) {
      await this.#end(id, order, signal.aborted ? stoppedBy(signal) : failureOf(error));
    } finally {
      over.abort();
      await telling;
    }
  }

  /** Writes down how far it is, and learns from the row whether it is still wanted: any node may cancel it. */
  async #tell(id: string, progress: StagingProgress, over: AbortSignal, abort: AbortController): Promise<void> {
    const { db, telemetry } = this.#deps;
    for (; !over.aborted; await delay(PROGRESS_EVERY_MS, over)) {
      try {
        if (!(await writeProgress(db, id, progress)) && !over.aborted) abort.abort(CANCELED);
      } catch (error) {
        telemetry.backgroundFailure('staging progress', error);
      }
    }
  }

  async #end(id: string, { model, correlationId }: StageOrder, end: Staged | Failure): Promise<void> {
    const { db, telemetry, view } = this.#deps;
    const row =
      'path' in end
        ? { state: 'SUCCEEDED' as const, path: end.path, error: null, detail: end.detail, sizeBytes: end.sizeBytes }
        : { state: end.state, path: null, error: end.reason, detail: end.reason.message, sizeBytes: null };
    telemetry.staged({ modelId: model.id, correlationId }, row.state, row.detail);
    // A row that cannot be ended now is ended by the sweep, as interrupted.
    await endStaging(db, id, row).catch((error: unknown) => telemetry.backgroundFailure('staging end', error));
    await view.refresh();
  }
}

type Writable<T> = { -readonly [Key in keyof T]: T[Key] };

interface Failure {
  readonly state: 'FAILED' | 'CANCELED';
  readonly reason: Reason;
}

function stoppedBy(signal: AbortSignal): Failure {
  if (signal.reason !== CANCELED) return { state: 'FAILED', reason: INTERRUPTED };
  const fix = 'Stage it again: what was downloaded is gone on with.';
  return { state: 'CANCELED', reason: { code: 'CANCELED', message: 'It was cancelled.', fix } };
}

function failureOf(error: unknown): Failure {
  if (error instanceof ProvisionError) return { state: 'FAILED', reason: error.reason };
  const message = error instanceof Error ? error.message : String(error);
  return { state: 'FAILED', reason: { code: 'STAGING_FAILED', message, fix: 'Look at the log; stage it again.' } };
}
