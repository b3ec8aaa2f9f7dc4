/** What an earlier life of this node left running: an engine that fits its pool keeps its seat, the others are ended. */
import { NODE_LOST } from '../../core/node.js';
import { type Seat, seatsAtStart } from '../../core/seats.js';
import { reapOrphan } from '../../host/process.js';
import { reapUnrecorded } from '../../host/unrecorded.js';
import type { ReplicaRow } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Inherited } from './instance.js';

const ORPHAN_GRACE_MS = 2_000;

export interface PoolAtStart {
  readonly id: string;
  readonly modelRef: string;
  /** The devices of each place. */
  readonly masks: readonly string[];
}

export interface InheritedSeat extends Seat {
  /** Null: nothing runs there. */
  readonly inherited: Inherited | null;
}

/** @returns the seats of each pool; every engine of ours that is in none of them is gone then. */
export async function settleInheritance(
  pools: readonly PoolAtStart[],
  rows: readonly ReplicaRow[],
  node: { readonly id: string; readonly telemetry: Telemetry },
): Promise<ReadonlyMap<string, readonly InheritedSeat[]>> {
  const running = rows.filter((row) => row.nodeId === node.id && inheritedOf(row) !== null);
  const seats = new Map(pools.map((pool) => [pool.id, seatsOf(pool, running)]));
  const kept = new Set([...seats].flatMap(([, own]) => own.map(({ inherited }) => inherited?.mark)));
  const unwanted = running.filter(({ mark }) => mark !== null && !kept.has(mark));
  await Promise.all(unwanted.map((row) => end(row, node.telemetry)));
  const survives = (mark: string, error: unknown) => tellSurvivor(node.telemetry, { mark }, error);
  for (const mark of await reapUnrecorded(node.id, (known) => kept.has(known), ORPHAN_GRACE_MS, survives)) {
    const human = 'An engine that an earlier start could not write down was ended.';
    node.telemetry.log.info({ mark, fate: 'reaped', human }, 'orphan check');
  }
  return seats;
}

async function end(row: ReplicaRow, telemetry: Telemetry): Promise<void> {
  const orphan = inheritedOf(row);
  if (orphan === null) return;
  const outcome = reapOrphan({ ...orphan, graceMs: ORPHAN_GRACE_MS });
  const fate = await outcome.catch((error: unknown) => {
    tellSurvivor(telemetry, { replica_id: row.id, pid: row.pid }, error);
    return 'not to be ended';
  });
  telemetry.log.info(
    { replica_id: row.id, pid: row.pid, fate, human: `An engine of an earlier start was ${fate}.` },
    'orphan check',
  );
}

/** The others start all the same: what it holds of its GPU is seen there. */
function tellSurvivor(telemetry: Telemetry, engine: object, error: unknown): void {
  const human =
    'An engine of an earlier start cannot be ended. Look at the driver (dmesg); the host may have to be restarted.';
  telemetry.log.error({ ...engine, err: error, human }, 'orphan check');
}

function seatsOf({ id, modelRef, masks }: PoolAtStart, running: readonly ReplicaRow[]): InheritedSeat[] {
  const own = running.filter((row) => row.poolId === id && served(row));
  const fitting = own.filter((row) => row.modelRef === modelRef);
  return seatsAtStart(masks, modelRef, own).map((seat) => {
    const row = fitting.find(({ ordinal, deviceMask }) => ordinal === seat.ordinal && deviceMask === masks[seat.place]);
    return { ...seat, inherited: row === undefined ? null : inheritedOf(row) };
  });
}

/** When it was last known; other nodes that miss this one write down that they do. */
function served({ state, lastError }: ReplicaRow): boolean {
  return state === 'READY' || state === 'DRAINING' || lastError?.code === NODE_LOST;
}

function inheritedOf({ pid, pidStartTicks, mark }: ReplicaRow): Inherited | null {
  return pid === null || mark === null ? null : { pid, startTimeTicks: Number(pidStartTicks ?? 0), mark };
}
