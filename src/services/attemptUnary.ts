/**
 * Embeddings and rankings: one call, one answer, no tokens. Nobody sees anything before the end, so a run that was lost may
 * always be repeated, whatever its determinism.
 */
import type { TaskResult } from '../core/workload.js';
import type { Work, WorkDeps, WorkEnd } from './attemptWork.js';

export class UnaryWork implements Work {
  readonly #deps: WorkDeps;
  #askedAtMs: number | null = null;

  constructor(deps: WorkDeps) {
    this.#deps = deps;
  }

  begin(again: boolean): void {
    if (again) this.#deps.seam();
  }

  measuredMs(): number {
    return this.#askedAtMs === null ? 0 : Math.round(this.#deps.clock.monotonicMs() - this.#askedAtMs);
  }

  async run(signal: AbortSignal): Promise<WorkEnd> {
    this.#askedAtMs = this.#deps.clock.monotonicMs();
    const { tokensIn, result } = await this.#ask(signal);
    this.#deps.checkHeld();
    const decodeMs = this.measuredMs();
    return { finishReason: 'stop', tokensIn, tokensOut: 0, decodeMs, tokensPerSecond: null, result };
  }

  async #ask(signal: AbortSignal): Promise<{ readonly tokensIn: number; readonly result: TaskResult }> {
    const { task, replica, requestId } = this.#deps;
    const { prompt: query, inputs } = task;
    if (task.workload === 'embedding') {
      const { vectors, tokensIn } = await replica.adapter.embed({ requestId, inputs }, signal);
      return { tokensIn, result: { embeddings: vectors } };
    }
    const { results, tokensIn } = await replica.adapter.rerank({ requestId, query, documents: inputs }, signal);
    return { tokensIn, result: { ranking: results } };
  }
}
