/**
 * Drains pools that serve nothing but models whose time is over. By what is, not by what happened: a pool that comes back
 * with such a model, after a restart or a resume, is drained again.
 */
import { RefusalError } from '../../core/errors.js';
import type { Clock } from '../../runtime/clock.js';
import { Reconciler } from '../../runtime/reconciler.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { CatalogView, PoolModel } from './view.js';

const LOOK_EVERY_MS = 1_000;

export interface RetirementDeps {
  readonly clock: Clock;
  readonly telemetry: Telemetry;
  readonly view: CatalogView;
  /** Pools of this node. */
  readonly pools: () => readonly (PoolModel & { readonly draining: boolean })[];
  /** @throws RefusalError conflict while another operation is under way. */
  readonly drain: (poolId: string) => Promise<unknown>;
}

export class Retirement {
  readonly #deps: RetirementDeps;
  readonly #loop: Reconciler;

  constructor(deps: RetirementDeps) {
    this.#deps = deps;
    this.#loop = new Reconciler({
      name: 'retirement of models',
      intervalMs: LOOK_EVERY_MS,
      run: (signal) => this.#look(signal),
      onError: (name, error) => deps.telemetry.backgroundFailure(name, error),
    });
  }

  start(): void {
    this.#loop.start();
  }

  wake(): void {
    this.#loop.wake();
  }

  stop(): Promise<void> {
    return this.#loop.stop();
  }

  async #look(signal: AbortSignal): Promise<void> {
    const { view, clock, pools, drain } = this.#deps;
    const taking = pools().filter(({ draining }) => !draining);
    for (const poolId of view.toDrain(taking, clock.nowMs())) {
      if (signal.aborted) return;
      try {
        await drain(poolId);
      } catch (error) {
        // What is under way there ends; the next look tries again.
        if (!(error instanceof RefusalError) || error.refusal.family !== 'conflict') throw error;
      }
    }
  }
}
