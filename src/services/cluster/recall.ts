/** The end of a drain of a pool that several nodes serve: what still runs on the others is stopped there. */
import { pollUntil } from '../../runtime/wait.js';
import type { Database } from '../../store/database.js';
import { activeLeases, recallLeases } from '../../store/leases.js';
import type { LeaseKeeper } from '../leases.js';
import type { OperationRun, Outcome } from '../operations/run.js';

const LOOK_EVERY_MS = 100;
/** A holder that lives looks every quarter second and stops within seconds; the leases of one that does not run out. */
const DEADLINE_MS = 30_000;

/** @param drained how the drain of this node ended. @returns the same with what became of the other nodes' tasks. */
export async function recallElsewhere(
  { db, leases }: { readonly db: Database; readonly leases: LeaseKeeper },
  run: OperationRun,
  drained: Outcome,
): Promise<Outcome> {
  const { poolId } = run.facts;
  const recalled = await recallLeases(db, poolId, leases.holder);
  if (recalled === 0) return drained;
  const areBack = async () => !(await activeLeases(db)).some((lease) => lease.poolId === poolId);
  const back = await pollUntil(areBack, { everyMs: LOOK_EVERY_MS, deadlineMs: DEADLINE_MS, signal: run.signal });
  run.checkStop();
  const late = back ? '' : `; not all of them had stopped after ${DEADLINE_MS} ms`;
  return {
    ...drained,
    outcome: `${drained.outcome}, ${recalled} stopped on other nodes${late}`,
    facts: { ...drained.facts, recalled },
  };
}
