/** The replicas of a pool and the slots held on them, read in one statement, so that both are of one moment. */
import type { RegistryReplica } from '../core/registry.js';
import type { Database, Statement } from './database.js';

export interface StoredRegistryReplica extends RegistryReplica {
  readonly slotsHeld: number;
  readonly gpuUuids: readonly string[];
}

const REPLICAS_OF: Statement = {
  name: 'registry_replicas',
  text: `
SELECT r.id, r.state, r.slots_total AS "slotsTotal", r.engine_version AS "engineVersion", r.last_error AS "lastError",
       (extract(epoch FROM r.last_heartbeat_at) * 1000)::float8 AS "lastHeartbeatMs",
       r.tokens_per_second AS "tokensPerSecond", r.first_token_ms AS "firstTokenMs", r.gpu_uuids AS "gpuUuids",
       (SELECT count(*)::int FROM leases l WHERE l.replica_id = r.id AND l.released_at IS NULL) AS "slotsHeld"
FROM replicas r WHERE r.pool_id = $1 AND NOT r.retired ORDER BY r.ordinal`,
};

/** In the order of their numbers; none for a pool that is not there. */
export async function registryReplicas(db: Database, poolId: string): Promise<StoredRegistryReplica[]> {
  return db.query(REPLICAS_OF, [poolId]);
}
