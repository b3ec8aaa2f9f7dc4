/** Control planes that share this database: which there are, which pools they serve, and what those that are gone left. */
import type { Engine } from '../core/errors.js';
import { NODE_FORGOTTEN_AFTER_MS, NODE_LOST, NODE_TTL_MS } from '../core/node.js';
import type { Workload } from '../core/workload.js';
import type { Database, Statement } from './database.js';
import { RETIRE_POOLS, RETIRE_REPLICAS } from './pools.js';

/** Of a row `n`: it stopped without saying so, or in order. */
export const IS_GONE = `(n.stopped_at IS NOT NULL OR n.seen_at <= now() - interval '${NODE_TTL_MS} milliseconds')`;

const UNIQUE_VIOLATION = '23505';
/** So many nodes may start at the same moment. */
const REGISTER_ATTEMPTS = 20;

// A node keeps its number; a new one gets the smallest that is free.
const REGISTER: Statement = {
  name: 'node_register',
  text: `
INSERT INTO nodes AS n (id, number, url, started_at, seen_at)
SELECT $1::uuid, min(f.number), $2, now(), now()
FROM generate_series(0, (SELECT count(*) FROM nodes)) AS f(number)
WHERE NOT EXISTS (SELECT 1 FROM nodes o WHERE o.number = f.number)
ON CONFLICT (id) DO UPDATE SET url = excluded.url, started_at = now(), seen_at = now(), stopped_at = NULL
RETURNING n.number`,
};

/** @returns its number, which no other node on this database has. */
export async function registerNode(db: Database, node: { readonly id: string; readonly url: string }): Promise<number> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const [row] = await db.query<{ number: number }>(REGISTER, [node.id, node.url]);
      if (row === undefined) throw new Error('a node was not registered');
      return row.number;
    } catch (error) {
      // Two new nodes may find the same number to be free.
      const taken = error instanceof Error && 'code' in error && error.code === UNIQUE_VIOLATION;
      if (!taken || attempt === REGISTER_ATTEMPTS) throw error;
    }
  }
}

const BEAT: Statement = { name: 'node_beat', text: 'UPDATE nodes SET seen_at = now() WHERE id = $1 RETURNING id' };

/** On the connections of the leases: load must not make a node look dead. @returns false when it was forgotten. */
export async function beatNode(db: Database, nodeId: string): Promise<boolean> {
  return (await db.leaseQuery(BEAT, [nodeId])).length > 0;
}

const LEAVE: Statement = { name: 'node_leave', text: 'UPDATE nodes SET stopped_at = now() WHERE id = $1' };

/** It stops in order: nobody needs to wait until it is missed. */
export async function leaveNode(db: Database, nodeId: string): Promise<void> {
  await db.query(LEAVE, [nodeId]);
}

// Old rows of others only: whoever starts now is registered already.
const FORGET: Statement = {
  name: 'node_forget',
  text: `
WITH old AS (
  SELECT id FROM nodes WHERE id <> $1 AND seen_at <= now() - interval '${NODE_FORGOTTEN_AFTER_MS} milliseconds'
), over AS (
  SELECT r.id FROM replicas r JOIN old ON old.id = r.node_id
), gone AS (${RETIRE_REPLICAS}, given_up AS (
  SELECT m.pool_id, m.node_id FROM pool_members m JOIN old ON old.id = m.node_id
), nobodys AS (${RETIRE_POOLS}
DELETE FROM nodes n USING old WHERE n.id = old.id`,
};

/** Nodes that have been away for a day, with their replicas, and the pools that only they had. */
export async function forgetNodes(db: Database, ownId: string): Promise<void> {
  await db.query(FORGET, [ownId]);
}

export interface Member {
  readonly poolId: string;
  readonly nodeId: string;
  readonly nodeNumber: number;
  readonly url: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
  readonly quant: string | null;
  readonly samplerProfileVersion: string | null;
}

const OTHER_MEMBERS: Statement = {
  name: 'node_other_members',
  text: `
SELECT m.pool_id AS "poolId", n.id AS "nodeId", n.number AS "nodeNumber", n.url, m.engine, m.model_ref AS "modelRef",
       m.context_length AS "contextLength", m.quant, m.sampler_profile_version AS "samplerProfileVersion"
FROM pool_members m JOIN nodes n ON n.id = m.node_id
WHERE m.pool_id = $1 AND n.id <> $2 AND NOT ${IS_GONE} ORDER BY n.number`,
};

/** The other nodes that run and have this pool in their configuration. */
export async function otherMembers(db: Database, poolId: string, ownId: string): Promise<Member[]> {
  return db.query(OTHER_MEMBERS, [poolId, ownId]);
}

const JOIN: Statement = {
  name: 'node_join',
  text: `
INSERT INTO pool_members (pool_id, node_id, engine, model_ref, context_length, wall_ms, quant, sampler_profile_version)
VALUES ($1, $2, $3::engine, $4, $5, $6, $7, $8)
ON CONFLICT (pool_id, node_id) DO UPDATE SET engine = excluded.engine, model_ref = excluded.model_ref,
  context_length = excluded.context_length, wall_ms = excluded.wall_ms, quant = excluded.quant,
  sampler_profile_version = excluded.sampler_profile_version`,
};

export async function joinPool(
  db: Database,
  member: Omit<Member, 'nodeNumber' | 'url'> & { readonly wallMs: number },
): Promise<void> {
  const { poolId, nodeId, engine, modelRef, contextLength, wallMs, quant, samplerProfileVersion } = member;
  const identity = [engine, modelRef, contextLength];
  await db.query(JOIN, [poolId, nodeId, ...identity, wallMs, quant, samplerProfileVersion]);
}

// What they are is not known any more. The engines that served may serve on, and are taken over when their node comes
// back; the others are ended then, by their mark.
const PARK_LOST: Statement = {
  name: 'node_park_lost',
  text: `
UPDATE replicas r SET state = 'FAILED', health = 'DEAD', breaker = 'OPEN', endpoint = NULL, backoff_until = NULL,
  pid = CASE WHEN r.state IN ('READY', 'DRAINING') THEN r.pid END,
  last_error = jsonb_build_object('code', '${NODE_LOST}', 'message', 'Node ' || n.number || ' (' || n.url ||
    '), which runs it, has not been heard of.', 'fix', 'Start that node again.')
FROM nodes n
WHERE n.id = r.node_id AND n.id <> $1 AND ${IS_GONE} AND NOT r.retired
  AND r.state NOT IN ('ABSENT', 'QUARANTINED', 'FAILED')
RETURNING r.id, r.pool_id AS "poolId", n.number AS "nodeNumber"`,
};

export interface LostReplica {
  readonly id: string;
  readonly poolId: string;
  readonly nodeNumber: number;
}

/** @returns the replicas that were believed to be up until now. */
export async function parkLostReplicas(db: Database, ownId: string): Promise<LostReplica[]> {
  return db.query(PARK_LOST, [ownId]);
}

const ELSEWHERE: Statement = {
  name: 'node_elsewhere',
  text: `
SELECT p.id, p.engine, p.model_ref AS "modelRef", p.context_length AS "contextLength", p.device_mask AS "deviceMask",
       p.full_policy AS "fullPolicy", p.draining, min(m.wall_ms) AS "wallMs",
       bool_or(NOT ${IS_GONE}) AS running,
       coalesce(bool_or(r.state = 'READY') FILTER (WHERE NOT ${IS_GONE}), false) AS ready,
       coalesce(bool_or(r.state NOT IN ('QUARANTINED', 'FAILED')) FILTER (WHERE NOT ${IS_GONE}), false) AS recoverable,
       ARRAY(SELECT DISTINCT unnest(o.workloads) FROM replicas o
             WHERE o.pool_id = p.id AND o.node_id <> $1 AND NOT o.retired) AS workloads,
       coalesce(jsonb_agg(jsonb_build_object('id', r.id, 'engineVersion', r.engine_version, 'modelRef', r.model_ref))
                FILTER (WHERE r.state IN ('READY', 'DRAINING') AND r.engine_version IS NOT NULL AND NOT ${IS_GONE}),
                '[]') AS versions,
       coalesce(sum(r.slots_total) FILTER (WHERE NOT ${IS_GONE}), 0)::int AS "slotsTotal",
       coalesce(sum(r.slots_total) FILTER (WHERE r.state = 'READY' AND NOT ${IS_GONE}), 0)::int AS "slotsReady",
       coalesce(sum(r.slots_total - l.held) FILTER (WHERE r.state = 'READY' AND NOT ${IS_GONE}), 0)::int AS "slotsFree"
FROM pool_members m JOIN nodes n ON n.id = m.node_id JOIN pools p ON p.id = m.pool_id
LEFT JOIN replicas r ON r.pool_id = p.id AND r.node_id = n.id AND NOT r.retired
LEFT JOIN LATERAL (
  SELECT count(*)::int AS held FROM leases WHERE replica_id = r.id AND released_at IS NULL
) l ON true
WHERE n.id <> $1 GROUP BY p.id ORDER BY p.id`,
};

/** The engine of a replica that serves. */
export interface ServedVersion {
  /** Of the replica. */
  readonly id: string;
  readonly engineVersion: string;
  readonly modelRef: string | null;
}

/** A pool as the other nodes serve it, together. */
export interface PoolElsewhere {
  readonly id: string;
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
  readonly deviceMask: string;
  readonly fullPolicy: 'reject' | 'drop-lru' | 'shed-low-priority';
  readonly draining: boolean;
  readonly wallMs: number;
  /** Whether one of them runs. */
  readonly running: boolean;
  readonly ready: boolean;
  readonly recoverable: boolean;
  /** Its replicas together, also those of nodes that have gone; none: it has no replica yet. */
  readonly workloads: readonly Workload[];
  /** Of the replicas that serve, on nodes that run. */
  readonly versions: readonly ServedVersion[];
  readonly slotsTotal: number;
  readonly slotsReady: number;
  readonly slotsFree: number;
}

/** Every pool that another node has in its configuration, also one that has gone and may come back. */
export async function poolsElsewhere(db: Database, ownId: string): Promise<PoolElsewhere[]> {
  return db.query(ELSEWHERE, [ownId]);
}
