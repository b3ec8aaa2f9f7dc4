/**
 * This control plane as one of those that share a database: it has a number that no other has, says every few seconds
 * that it runs, and tells of those that have stopped doing so.
 */
import { conflict, RefusalError } from '../../core/errors.js';
import { disagreement, ignoredSettings, NODE_BEAT_EVERY_MS, NODE_TTL_MS } from '../../core/node.js';
import type { Reason } from '../../core/pool.js';
import { StartupError } from '../../host/startupError.js';
import { Reconciler } from '../../runtime/reconciler.js';
import type { Database } from '../../store/database.js';
import {
  beatNode,
  forgetNodes,
  joinPool,
  leaveNode,
  type Member,
  otherMembers,
  parkLostReplicas,
  registerNode,
} from '../../store/nodes.js';
import { abandonOperations, operationUnderWay } from '../../store/operations.js';
import { listPools, type PoolDesired, poolQueue, type ReplicaRow, upsertPool } from '../../store/pools.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { PoolEvents } from '../poolEvents.js';

/** So many other nodes may give a pool up while this one comes to it. */
const ENTER_ATTEMPTS = 5;

export interface Entered {
  readonly modelRef: string;
  readonly notes: readonly Reason[];
}

export interface MembershipDeps {
  readonly db: Database;
  /** Of this node. */
  readonly nodeId: string;
  readonly url: string;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
}

export class Membership {
  readonly #deps: MembershipDeps;
  readonly #beats: Reconciler;
  readonly #losses: Reconciler;
  #number: number | null = null;
  /** Since when its own beats have come without a gap, monotonic ms; null: the last one failed. */
  #beatingSinceMs: number | null = null;
  #lastBeatMs = 0;

  constructor(deps: MembershipDeps) {
    this.#deps = deps;
    const onError = (name: string, error: unknown) => deps.telemetry.backgroundFailure(name, error);
    const intervalMs = NODE_BEAT_EVERY_MS;
    this.#beats = new Reconciler({ name: 'node heartbeat', intervalMs, run: () => this.#beat(), onError });
    this.#losses = new Reconciler({ name: 'lost nodes', intervalMs, run: () => this.#lookForLosses(), onError });
  }

  get nodeId(): string {
    return this.#deps.nodeId;
  }

  get number(): number {
    if (this.#number === null) throw new Error('the node has not been registered');
    return this.#number;
  }

  /** False where the database was away for all, or this node stood still: then the others have not been heard of either. */
  get knowsOthers(): boolean {
    const beatingForMs = this.#beatingSinceMs === null ? 0 : performance.now() - this.#beatingSinceMs;
    return beatingForMs >= NODE_TTL_MS && performance.now() - this.#lastBeatMs <= NODE_TTL_MS;
  }

  /** Before anything else is written; what an earlier life of this node had under way is over. */
  async start(): Promise<void> {
    const { db, nodeId, url } = this.#deps;
    this.#number = await registerNode(db, { id: nodeId, url });
    await forgetNodes(db, nodeId);
    await abandonOperations(db, nodeId, 'and ours');
    this.#beats.start();
    this.#losses.start();
  }

  /** After everything else: the others need not wait until this node is missed. */
  async stop(): Promise<void> {
    await Promise.all([this.#beats.stop(), this.#losses.stop()]);
    const { db, nodeId, telemetry } = this.#deps;
    await leaveNode(db, nodeId).catch((error: unknown) => telemetry.backgroundFailure('node stop', error));
  }

  /**
   * Makes this node one of those that serve a pool. The first of them decides what the pool is; the others have to agree.
   * @returns the model to serve, which a reload may have changed since the file was written, and what of it does not hold.
   * @throws StartupError when they do not agree, or while the pool is given another model.
   */
  async enter(pool: PoolDesired, wallMs: number): Promise<Entered> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await this.#enter(pool, wallMs);
      } catch (error) {
        // The last node that had it has given it up, and its row has gone between two of our writes.
        if (!isForeignKeyError(error) || attempt === ENTER_ATTEMPTS) throw error;
      }
    }
  }

  async #enter(pool: PoolDesired, wallMs: number): Promise<Entered> {
    const { db, nodeId } = this.#deps;
    const others = await otherMembers(db, pool.id, nodeId);
    checkAgreement(pool, others);
    if (others.length === 0) await upsertPool(db, pool);
    const { id: poolId, engine, modelRef, contextLength, quant, samplerProfileVersion } = pool;
    const identity = { engine, modelRef, contextLength, quant, samplerProfileVersion };
    await joinPool(db, { poolId, nodeId, wallMs, ...identity });
    // Whoever came in at the same moment is seen now, by one of the two at least; so is a reload that began before we joined.
    const now = await otherMembers(db, poolId, nodeId);
    checkAgreement(pool, now);
    if (now.length > 0) await this.#checkNoReload(poolId);
    const serves = (await listPools(db)).find((row) => row.id === poolId)?.modelRef ?? modelRef;
    return { modelRef: serves, notes: now.length > 0 ? await this.#whatDoesNotHold(pool) : [] };
  }

  async #whatDoesNotHold(pool: PoolDesired): Promise<Reason[]> {
    const { db, telemetry } = this.#deps;
    const inForce = await poolQueue(db, pool.id);
    const reason = inForce === null ? null : ignoredSettings(pool, inForce);
    if (reason === null) return [];
    telemetry.log.warn(
      {
        pool_id: pool.id,
        code: reason.code,
        detail: reason.message,
        human: 'Settings of a pool do not hold: others serve it with theirs.',
      },
      'settings ignored',
    );
    return [reason];
  }

  /** The nodes that run and have the pool in their configuration, without this one. */
  others(poolId: string): Promise<Member[]> {
    return otherMembers(this.#deps.db, poolId, this.nodeId);
  }

  /** For what one node cannot do to a pool of several. @throws RefusalError conflict, naming another that serves it */
  async checkAlone(poolId: string, what: string): Promise<void> {
    const [other] = await this.others(poolId);
    if (other === undefined) return;
    const message = `${what} needs a pool of one node, and ${nameOf(other)} serves ${poolId} too; stop that node first`;
    throw new RefusalError(conflict('pool', message));
  }

  /** @throws RefusalError conflict: nobody has it, or another node has, by name */
  async refuseForeign(poolId: string): Promise<never> {
    const [other] = await this.others(poolId);
    const message =
      other === undefined
        ? `pool ${poolId} is not in the configuration of this node`
        : `pool ${poolId} is served by ${nameOf(other)}; ask that one`;
    throw new RefusalError(conflict('pool', message));
  }

  /** @throws RefusalError conflict, naming the node that runs the replica */
  async refuseForeignReplica({ id, poolId, nodeId }: ReplicaRow): Promise<never> {
    const owner = (await this.others(poolId)).find((other) => other.nodeId === nodeId);
    const message =
      owner === undefined ? `the node of ${id} does not run` : `${id} is run by ${nameOf(owner)}; ask that one`;
    throw new RefusalError(conflict('replica', message));
  }

  async #checkNoReload(poolId: string): Promise<void> {
    const operation = await operationUnderWay(this.#deps.db, poolId);
    if (operation === null || operation.kind !== 'RELOAD') return;
    throw new StartupError(
      `Pool ${poolId} is being given another model by another node (operation ${operation.id}).`,
      'Start again when that has ended.',
    );
  }

  async #beat(): Promise<void> {
    const beating = await beatNode(this.#deps.db, this.nodeId).catch((error: unknown) => {
      this.#beatingSinceMs = null;
      throw error;
    });
    if (!beating) throw new Error('this node was away for so long that the others have forgotten it; restart it');
    const nowMs = performance.now();
    if (this.#beatingSinceMs === null || nowMs - this.#lastBeatMs > NODE_TTL_MS) this.#beatingSinceMs = nowMs;
    this.#lastBeatMs = nowMs;
  }

  async #lookForLosses(): Promise<void> {
    if (!this.knowsOthers) return;
    const { db, nodeId, events, telemetry } = this.#deps;
    for (const { id, poolId, nodeNumber } of await parkLostReplicas(db, nodeId)) {
      const message = `node ${nodeNumber}, which runs it, has not been heard of`;
      telemetry.log.warn(
        { replica_id: id, pool_id: poolId, node: nodeNumber, human: 'A replica is lost with the node that runs it.' },
        'node lost',
      );
      await events.record({ poolId, replicaId: id, kind: 'node_lost', message, detail: { node: nodeNumber } });
    }
    await abandonOperations(db, nodeId, 'of nodes that are gone');
  }
}

function nameOf({ nodeNumber, url }: Pick<Member, 'nodeNumber' | 'url'>): string {
  return `node ${nodeNumber} (${url})`;
}

function isForeignKeyError(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === '23503';
}

function checkAgreement(pool: PoolDesired, others: readonly Member[]): void {
  for (const other of others) {
    const found = disagreement(pool, other);
    if (found === null) continue;
    throw new StartupError(
      `Pool ${pool.id} is served by ${nameOf(other)} with another configuration: ${found}.`,
      'Give both nodes the same there, or the pool another id; to change it, stop that node first.',
    );
  }
}
