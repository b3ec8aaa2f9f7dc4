/** What the doors may ask for. GraphQL and REST are given this and nothing below it. */
import type { Admission } from './admission.js';
import type { Artifacts } from './artifacts.js';
import type { Budgets } from './budgets.js';
import type { Cancellation } from './cancellation.js';
import type { Catalog } from './catalog/catalog.js';
import type { CatalogView } from './catalog/view.js';
import type { Gpus } from './gpus.js';
import type { Host } from './host.js';
import type { PoolEvents } from './poolEvents.js';
import type { Pools } from './pools.js';
import type { Provisioning } from './provisioning/provisioning.js';
import type { Quotes } from './quotes.js';
import type { ReplicaLogs } from './replicaLogs.js';
import type { Sessions } from './sessions.js';
import type { Staging } from './staging/staging.js';
import type { StreamHub } from './streams/hub.js';
import type { Tasks } from './tasks.js';
import type { Verification } from './verification.js';

export interface Services {
  readonly admission: Admission;
  readonly cancellation: Cancellation;
  readonly streams: StreamHub;
  readonly tasks: Tasks;
  readonly verification: Verification;
  readonly pools: Pools;
  readonly poolEvents: PoolEvents;
  readonly provisioning: Provisioning;
  readonly quotes: Quotes;
  readonly gpus: Gpus;
  readonly host: Host;
  readonly replicaLogs: ReplicaLogs;
  readonly sessions: Sessions;
  readonly budgets: Budgets;
  readonly artifacts: Artifacts;
  readonly catalog: Catalog;
  readonly catalogView: CatalogView;
  readonly staging: Staging;
}
