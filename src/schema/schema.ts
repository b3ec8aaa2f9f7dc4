/** The whole schema: every noun is imported for its effect on the builder. */
import type { GraphQLSchema } from 'graphql';
import { builder } from './builder.js';
import './scalars.js';
import './enums.js';
import './refusal.js';
import './pool.js';
import './replica.js';
import './replicaLogs.js';
import './crash.js';
import './gpu.js';
import './host.js';
import './controlPlane.js';
import './registry.js';
import './task.js';
import './artifact.js';
import './catalog.js';
import './catalogChanges.js';
import './staging.js';
import './submitTask.js';
import './quote.js';
import './taskEvents.js';
import './receipt.js';
import './verification.js';
import './poolEvents.js';
import './lease.js';
import './session.js';
import './budget.js';
import './operation.js';
import './preparedEngine.js';
import './capabilities.js';

export function buildSchema(): GraphQLSchema {
  return builder.toSchema();
}
