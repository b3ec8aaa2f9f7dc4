/** The business events of the catalog and of retention. As in `events`, one function each. */
import type { ModelState, VerificationResult } from '../core/catalog.js';
import type { Reason } from '../core/pool.js';
import type { Retained } from '../core/retention.js';
import { DoorTelemetry } from './doors.js';

/** Reasons that may be a label; any other one comes from the host and is told in the log. */
const KNOWN_REASONS: ReadonlySet<string> = new Set([
  'DIGEST_MISMATCH',
  'UNSIGNED',
  'SIGNATURE_UNVERIFIED',
  'REGISTRY_NOT_ALLOWED',
  'SBOM_MISSING',
  'NO_SOURCE',
  'NOT_STAGED',
  'MODEL_MISSING',
  'POLICY_REFUSED',
]);

/** What was done with a model, and by which request. */
export interface ModelWork {
  readonly modelId: string;
  readonly correlationId?: string | undefined;
}

export class CatalogTelemetry extends DoorTelemetry {
  /** All models of the catalog, as they are now. */
  modelStates(models: readonly { readonly id: string; readonly state: ModelState }[]): void {
    this.metrics.modelState.reset();
    for (const { id, state } of models) this.metrics.modelState.set({ model_id: id, state }, 1);
  }

  /** @param deadlineMs after which its pools are drained; null: they are not. */
  modelStateChanged({ modelId, correlationId }: ModelWork, state: ModelState, deadlineMs: number | null): void {
    const human = state === 'Retired' ? 'A model was retired and takes no new tasks.' : 'A model takes tasks again.';
    const line = { model_id: modelId, correlation_id: correlationId, state, deadline_ms: deadlineMs, human };
    this.log.info(line, 'model state changed');
  }

  /** @param engines of the pools that serve it. */
  modelVerified(
    { modelId, correlationId }: ModelWork,
    { result, reasons }: { readonly result: VerificationResult; readonly reasons: readonly Reason[] },
    engines: readonly string[],
  ): void {
    const code = reasons[0]?.code ?? 'NONE';
    const reason = code === 'NONE' || KNOWN_REASONS.has(code) ? code : 'OTHER';
    for (const engine of engines.length === 0 ? [''] : new Set(engines)) {
      this.metrics.catalogVerifications.inc({ result, reason, engine });
    }
    const codes = reasons.map((one) => one.code);
    const human = `A model was verified: ${result}.`;
    const line = { model_id: modelId, correlation_id: correlationId, result, reasons: codes, human };
    if (result === 'FAILED') this.log.warn(line, 'model verified');
    else this.log.info(line, 'model verified');
  }

  staged({ modelId, correlationId }: ModelWork, result: 'SUCCEEDED' | 'FAILED' | 'CANCELED', detail: string): void {
    this.metrics.modelStagings.inc({ result });
    const human = `The staging of a model ended as ${result}.`;
    const line = { model_id: modelId, correlation_id: correlationId, result, detail, human };
    if (result === 'FAILED') this.log.warn(line, 'model staged');
    else this.log.info(line, 'model staged');
  }

  /** Rows that were older than `upToMs` are gone. */
  forgotten(kind: Retained, rows: number, upToMs: number): void {
    this.metrics.retentionRemoved.inc({ kind }, rows);
    const up_to = new Date(upToMs).toISOString();
    this.log.info({ kind, rows, up_to, human: `${rows} old rows of ${kind} were removed.` }, 'retention');
  }
}
