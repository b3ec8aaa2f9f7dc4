/** What nodes on one database write about themselves and about each other. */
import { randomUUID } from 'node:crypto';
import { afterEach, beforeEach, expect, it } from 'vitest';
import {
  beatNode,
  forgetNodes,
  joinPool,
  leaveNode,
  otherMembers,
  parkLostReplicas,
  poolsElsewhere,
  registerNode,
} from '../../src/store/nodes.js';
import { abandonOperations, insertOperation, readOperation } from '../../src/store/operations.js';
import { listPools, listReplicas, retireOthers } from '../../src/store/pools.js';
import { submitTasks } from '../../src/store/queue.js';
import { openDatabase } from '../support/database.js';
import { newTask, SUBMIT, seedPool } from '../support/tasks.js';

let opened: Awaited<ReturnType<typeof openDatabase>>;
beforeEach(async () => {
  opened = await openDatabase();
});
afterEach(() => opened[Symbol.asyncDispose]());

async function node(): Promise<string> {
  const id = randomUUID();
  await registerNode(opened.db, { id, url: `http://${id}` });
  return id;
}

/** How a node serves a pool. */
const MEMBER = {
  engine: 'llamacpp',
  modelRef: 'm',
  contextLength: 4096,
  wallMs: 1_000,
  quant: null,
  samplerProfileVersion: null,
} as const;

/** A pool with one replica, both of that node. */
async function poolOf(nodeId: string, poolId: string): Promise<void> {
  await seedPool(opened.db, { id: poolId });
  await opened.query('UPDATE replicas SET node_id = $1 WHERE pool_id = $2', [nodeId, poolId]);
  await joinPool(opened.db, { poolId, nodeId, ...MEMBER });
}

const silentFor = (id: string, time: string) =>
  opened.query(`UPDATE nodes SET seen_at = now() - $2::interval WHERE id = $1`, [id, time]);

it('numbers are unique, also of nodes that come at the same moment, kept, and given again when free', async () => {
  const ids = Array.from({ length: 8 }, () => randomUUID());
  const register = (id: string) => registerNode(opened.db, { id, url: 'http://x' });
  const numbers = await Promise.all(ids.map(register));
  expect([...numbers].sort()).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
  expect(await Promise.all(ids.map(register))).toEqual(numbers);
  const third = ids[numbers.indexOf(3)] ?? '';
  await silentFor(third, '25 hours');
  await forgetNodes(opened.db, ids[numbers.indexOf(0)] ?? '');
  expect(await beatNode(opened.db, third)).toBe(false);
  expect(await register(randomUUID())).toBe(3);
});

it('a start takes away what this node no longer has, and nothing of the others', async () => {
  const [one, other] = [await node(), await node()];
  await poolOf(one, 'kept');
  await poolOf(one, 'dropped');
  await poolOf(one, 'both');
  await poolOf(one, 'used');
  await poolOf(other, 'foreign');
  await joinPool(opened.db, { poolId: 'both', nodeId: other, ...MEMBER });
  await submitTasks(opened.db, 'used', [newTask()], SUBMIT);
  await seedPool(opened.db, { id: 'coming' }); // of a node that has not joined it yet
  await retireOthers(opened.db, one, { pools: ['kept'], replicas: ['kept-0'] });
  const pools = (await listPools(opened.db)).map(({ id, draining }) => `${id}${draining ? ' closed' : ''}`);
  expect(pools).toEqual(['both', 'coming', 'foreign', 'kept', 'used closed']);
  expect((await listReplicas(opened.db)).map(({ id }) => id)).toEqual(['coming-0', 'foreign-0', 'kept-0']);
});

it('the replicas of a node that is gone are marked once, and those that served can be taken over', async () => {
  const [here, silent, stopped] = [await node(), await node(), await node()];
  await poolOf(here, 'mine');
  await poolOf(silent, 'silent');
  await poolOf(stopped, 'stopped');
  await opened.query(`UPDATE replicas SET pid = 7, mark = 'x'`);
  await opened.query(`UPDATE replicas SET state = 'STARTING' WHERE id = 'stopped-0'`);
  expect(await parkLostReplicas(opened.db, here)).toEqual([]);
  expect(await poolsElsewhere(opened.db, here)).toMatchObject([
    { id: 'silent', running: true, ready: true, recoverable: true, slotsTotal: 4, slotsFree: 4 },
    { id: 'stopped', running: true, ready: false, recoverable: true, slotsFree: 0 },
  ]);
  await silentFor(silent, '16 seconds');
  await leaveNode(opened.db, stopped);
  const lost = await parkLostReplicas(opened.db, here);
  expect(lost.map(({ id }) => id).sort()).toEqual(['silent-0', 'stopped-0']);
  expect(await parkLostReplicas(opened.db, here)).toEqual([]);
  const rows = (await listReplicas(opened.db)).map(({ id, state, pid, lastError }) => [
    id,
    state,
    pid,
    lastError?.code,
  ]);
  expect(rows).toEqual([
    ['mine-0', 'READY', 7, undefined],
    ['silent-0', 'FAILED', 7, 'NODE_LOST'],
    ['stopped-0', 'FAILED', null, 'NODE_LOST'],
  ]);
  expect(await otherMembers(opened.db, 'silent', here)).toEqual([]);
  expect(await poolsElsewhere(opened.db, here)).toMatchObject([
    { id: 'silent', running: false, ready: false, recoverable: false, slotsTotal: 0, slotsFree: 0 },
    { id: 'stopped', running: false, recoverable: false },
  ]);
});

it('operations are closed when their node is gone, by whoever looks; those of a node that runs go on', async () => {
  const [here, there, gone] = [await node(), await node(), await node()];
  const begun = async (poolId: string, nodeId: string) => {
    await seedPool(opened.db, { id: poolId });
    const id = randomUUID();
    await insertOperation(opened.db, { id, poolId, kind: 'RESUME', steps: [], input: {}, createdAtMs: 1, nodeId });
    return id;
  };
  const ids = [await begun('a', here), await begun('b', there), await begun('c', gone)];
  const states = async () => Promise.all(ids.map(async (id) => (await readOperation(opened.db, id))?.state));
  await silentFor(gone, '16 seconds');
  await abandonOperations(opened.db, here, 'of nodes that are gone');
  expect(await states()).toEqual(['PENDING', 'PENDING', 'FAILED']);
  await abandonOperations(opened.db, here, 'and ours');
  expect(await states()).toEqual(['FAILED', 'PENDING', 'FAILED']);
});
