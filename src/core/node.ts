/** Control planes that share a database. Each is a node, known by the id of its data directory. */
import type { Reason } from './pool.js';

/** A node that has not said so for this long does not run. The same as for leases: it is late for the same reasons. */
export const NODE_TTL_MS = 15_000;
export const NODE_BEAT_EVERY_MS = 5_000;
/** One that was away for so long is forgotten, with its replicas. */
export const NODE_FORGOTTEN_AFTER_MS = 24 * 3600 * 1000;

/** The code of a replica's last error while its node is gone. */
export const NODE_LOST = 'NODE_LOST';

/** Unlike any other on the database: no name of a pool has an @ in it. Node 0, often the only one, leaves it out. */
export function replicaName(poolId: string, ordinal: number, nodeNumber: number): string {
  return nodeNumber === 0 ? `${poolId}-${ordinal}` : `${poolId}-${ordinal}@${nodeNumber}`;
}

/** What the configuration of a node says of a pool; nodes that share one have to agree on it. */
export interface PoolIdentity {
  readonly engine: string;
  readonly modelRef: string;
  readonly contextLength: number;
  /** null: not stated. */
  readonly quant: string | null;
  readonly samplerProfileVersion: string | null;
}

/** In words, the first thing on which two nodes do not agree; null: they do. */
export function disagreement(ours: PoolIdentity, theirs: PoolIdentity): string | null {
  const parts = [
    { what: 'engine', here: ours.engine, there: theirs.engine },
    { what: 'model', here: ours.modelRef, there: theirs.modelRef },
    { what: 'ctx', here: String(ours.contextLength), there: String(theirs.contextLength) },
    { what: 'quant', here: ours.quant, there: theirs.quant },
    { what: 'sampler_profile_version', here: ours.samplerProfileVersion, there: theirs.samplerProfileVersion },
  ];
  const first = parts.find(({ here, there }) => here !== there);
  return first === undefined ? null : `${first.what} ${first.here ?? 'none'} here, ${first.there ?? 'none'} there`;
}

/** How a pool treats its queue: one for all nodes, by the row. */
export interface QueueSettings {
  readonly fullPolicy: string;
  readonly capacity: { readonly interactive: number; readonly batch: number; readonly total: number };
}

/** What the configuration of a node says of a queue and another node, which had the pool first, decided otherwise. */
export function ignoredSettings(ours: QueueSettings, inForce: QueueSettings): Reason | null {
  const parts = [
    { what: 'full_policy', here: ours.fullPolicy, there: inForce.fullPolicy },
    { what: 'capacity', here: ours.capacity.total, there: inForce.capacity.total },
    { what: 'queue_capacity of interactive', here: ours.capacity.interactive, there: inForce.capacity.interactive },
    { what: 'queue_capacity of batch', here: ours.capacity.batch, there: inForce.capacity.batch },
  ].filter(({ here, there }) => here !== there);
  if (parts.length === 0) return null;
  const told = parts.map(({ what, here, there }) => `${what} is ${there}, not ${here}`).join('; ');
  return {
    code: 'SETTINGS_IGNORED',
    message: `Another node had the pool first, and its settings of the queue hold: ${told}.`,
    fix: 'Give both nodes the same settings; to change them, stop all nodes that have the pool.',
  };
}
