/**
 * Embeddings and rankings: no tokens, and nothing is seen before the end, so a run that was lost may always be repeated,
 * whatever its determinism. Texts go to the engine some at a time: each answer is a sign of life, and an engine that finishes
 * what it was sent although its client has gone (llama-server does) has little left to finish.
 */
import { groupsOf, MAX_RESULT_BYTES, type TaskResult } from '../core/workload.js';
import { OversizedResultError } from './attemptFailure.js';
import type { Work, WorkDeps, WorkEnd } from './attemptWork.js';

export class UnaryWork implements Work {
  readonly #deps: WorkDeps;
  #askedAtMs: number | null = null;
  #tokensIn = 0;
  #resultBytes = 0;

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
    const result = this.#deps.task.workload === 'embedding' ? await this.#embed(signal) : await this.#rank(signal);
    const [tokensIn, decodeMs] = [this.#tokensIn, this.measuredMs()];
    return { finishReason: 'stop', tokensIn, tokensOut: 0, decodeMs, tokensPerSecond: null, result };
  }

  async #embed(signal: AbortSignal): Promise<TaskResult> {
    const { task, replica, requestId } = this.#deps;
    const embeddings: (readonly number[])[] = [];
    for (const { inputs } of groupsOf(task.inputs)) {
      const { vectors, tokensIn } = await replica.adapter.embed(
        { requestId, correlationId: task.correlationId, inputs },
        signal,
      );
      this.#take(vectors, tokensIn);
      embeddings.push(...vectors);
    }
    return { embeddings };
  }

  async #rank(signal: AbortSignal): Promise<TaskResult> {
    const { task, replica, requestId } = this.#deps;
    const ranking: { readonly index: number; readonly score: number }[] = [];
    for (const { first, inputs: documents } of groupsOf(task.inputs)) {
      const request = { requestId, correlationId: task.correlationId, query: task.prompt, documents };
      const { results, tokensIn } = await replica.adapter.rerank(request, signal);
      this.#take(results, tokensIn);
      for (const { index, score } of results) ranking.push({ index: first + index, score });
    }
    return { ranking: ranking.sort((a, b) => b.score - a.score || a.index - b.index) };
  }

  #take(part: readonly unknown[], tokensIn: number): void {
    // After a pause of this whole process, what the socket held comes before the timer that would have noticed.
    this.#deps.checkHeld();
    this.#tokensIn += tokensIn;
    this.#resultBytes += JSON.stringify(part).length;
    if (this.#resultBytes > MAX_RESULT_BYTES) throw new OversizedResultError();
  }
}
