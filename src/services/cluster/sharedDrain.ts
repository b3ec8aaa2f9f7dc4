/** A pool of several nodes is drained and resumed as one: what another node did to it holds here too. */
import type { PoolElsewhere } from '../../store/nodes.js';
import type { Supervisor } from '../supervision/supervisor.js';

export class SharedDrain {
  readonly #supervisor: Pick<Supervisor, 'poolIds' | 'pool'>;
  /** Pools whose row differed at the last look. Once may be a row that was read before a change of our own. */
  readonly #differed = new Set<string>();

  constructor(supervisor: Pick<Supervisor, 'poolIds' | 'pool'>) {
    this.#supervisor = supervisor;
  }

  /** @param row of a pool that another node has too. */
  follow({ id, draining }: Pick<PoolElsewhere, 'id' | 'draining'>): void {
    if (!this.#supervisor.poolIds().includes(id)) return;
    const pool = this.#supervisor.pool(id);
    const differed = this.#differed.delete(id);
    if (pool.draining === draining) return;
    if (differed) pool.setDraining(draining);
    else this.#differed.add(id);
  }
}
