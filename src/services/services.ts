/** What the doors may ask for. GraphQL and REST are given this and nothing below it. */
import type { Engine } from '../core/errors.js';
import type { Priority } from '../core/task.js';
import type { Admission } from './admission.js';
import type { Cancellation } from './cancellation.js';
import type { PoolEvents } from './poolEvents.js';
import type { Pools } from './pools.js';
import type { Sessions } from './sessions.js';
import type { StreamHub } from './streams/hub.js';
import type { Tasks } from './tasks.js';

export interface Services {
  readonly admission: Admission;
  readonly cancellation: Cancellation;
  readonly streams: StreamHub;
  readonly tasks: Tasks;
  readonly pools: Pools;
  readonly poolEvents: PoolEvents;
  readonly sessions: Sessions;
}

export interface Lane {
  readonly poolId: string;
  readonly priority: Priority;
  readonly capacity: number;
  readonly depth: number;
  readonly oldestAgeMs: number | null;
}

export interface EngineCapability {
  readonly engine: Engine;
  readonly contextMax: number;
  readonly workloads: readonly string[];
  readonly concurrency: number;
}
