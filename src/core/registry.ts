/** What the registry says of a pool, put together from its replicas. */
import type { Reason } from './pool.js';
import type { ReplicaState } from './replica.js';

export interface RegistryReplica {
  readonly id: string;
  readonly state: ReplicaState;
  readonly slotsTotal: number;
  readonly engineVersion: string | null;
  readonly lastError: Reason | null;
  readonly lastHeartbeatMs: number | null;
  /** Moving average over its tasks. */
  readonly tokensPerSecond: number | null;
  /** Moving average over its tasks, ms. */
  readonly firstTokenMs: number | null;
}

export interface RegistryEntry {
  readonly slotsTotal: number;
  /** How many tasks it would take now: slots of ready replicas that nobody holds; none while it drains. */
  readonly slotsFree: number;
  readonly activeLeases: number;
  /** Of the first replica that knows it. */
  readonly engineVersion: string | null;
  /** Of the first replica that has one; a replica that became ready has none. */
  readonly lastError: Reason | null;
  /** The latest of any replica. */
  readonly lastHeartbeatMs: number | null;
  /** Mean of the replicas that have worked. */
  readonly tokensPerSecond: number | null;
  /** Mean of the replicas that have worked, ms. */
  readonly firstTokenMs: number | null;
}

/** @param held slots held now, by replica; other replicas among them are not counted. */
export function registryEntry(
  pool: { readonly draining: boolean },
  replicas: readonly RegistryReplica[],
  held: ReadonlyMap<string, number>,
): RegistryEntry {
  const heldOf = ({ id }: RegistryReplica) => Math.max(0, held.get(id) ?? 0);
  const serving = pool.draining ? [] : replicas.filter(({ state }) => state === 'READY');
  const heartbeats = known(replicas, ({ lastHeartbeatMs }) => lastHeartbeatMs);
  return {
    slotsTotal: sum(replicas.map(({ slotsTotal }) => slotsTotal)),
    slotsFree: sum(serving.map((replica) => Math.max(0, replica.slotsTotal - heldOf(replica)))),
    activeLeases: sum(replicas.map(heldOf)),
    engineVersion: known(replicas, ({ engineVersion }) => engineVersion)[0] ?? null,
    lastError: known(replicas, ({ lastError }) => lastError)[0] ?? null,
    lastHeartbeatMs: heartbeats.length === 0 ? null : Math.max(...heartbeats),
    tokensPerSecond: mean(known(replicas, ({ tokensPerSecond }) => tokensPerSecond)),
    firstTokenMs: mean(known(replicas, ({ firstTokenMs }) => firstTokenMs)),
  };
}

export interface DeviceMemory {
  readonly totalBytes: number;
  /** What neither an engine of ours has booked nor, as far as it is read, anybody else uses. */
  readonly freeBytes: number;
}

/**
 * @param booked bytes that engines of ours were given.
 * @param readFreeBytes what the driver calls free; null: it does not say.
 */
export function freeMemory(totalBytes: number, booked: number, readFreeBytes: number | null): number {
  return Math.max(0, Math.min(totalBytes - booked, readFreeBytes ?? totalBytes));
}

/** The least of them, by number: what every device of a pool can do. */
export function leastCapability(capabilities: readonly (string | null)[]): string | null {
  const [least] = known(capabilities, (capability) => capability).sort((a, b) =>
    a.localeCompare(b, 'en', { numeric: true }),
  );
  return least ?? null;
}

function known<Item, Value>(items: readonly Item[], of: (item: Item) => Value | null): Value[] {
  return items.map(of).filter((value) => value !== null);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}

function mean(values: readonly number[]): number | null {
  return values.length === 0 ? null : sum(values) / values.length;
}
