/** Strikes the blows of a plan on a running control plane, and takes back what does not end by itself. */
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import type { Engine } from '../../src/core/errors.js';
import { isAlive, sendSignal } from '../../src/host/procfs.js';
import { delay, pollUntil } from '../../src/runtime/wait.js';
import type { HomeDatabase } from './chaosDatabase.js';
import { type Act, type Blow, faultSpec, poolsFor } from './chaosPlan.js';
import type { Plane } from './chaosPlane.js';
import type { EngineSeen, ProcessWatch } from './chaosWatch.js';

const FIND_MS = 30_000;
const START_TAKEN_MS = 12_000;
const NEVER_READY_MS = 2_500;
const DRAIN_DEADLINE_MS = 1_000;
const STARTED_ANEW_MS = 5_000;

/** A blow as it was struck. */
export interface Struck {
  readonly blow: Blow;
  readonly fromMs: number;
  /** While it is held: for ever. */
  untilMs: number;
  poolId: string | null;
  replicaId: string | null;
  /** The one task that it is about. */
  taskId: string | null;
  note: string;
}

interface Target {
  readonly id: string;
  readonly poolId: string;
  readonly endpoint: string;
  readonly pid: number;
}

export interface BlowsDeps {
  readonly plane: Plane;
  readonly database: HomeDatabase;
  readonly watch: ProcessWatch;
  readonly pools: readonly Engine[];
  /** Of the faults that engines read when they start. */
  readonly startFaults: string;
  /** Some task that has not ended; null when there is none. */
  readonly someTask: () => string | null;
}

export class Blows {
  readonly struck: Struck[] = [];
  readonly #deps: BlowsDeps;
  readonly #held = new Set<Promise<void>>();
  /** The newest blow that was switched on in an engine, by its pid: an older one does not switch it off. */
  readonly #switched = new Map<number, Struck>();
  readonly #failures: unknown[] = [];

  constructor(deps: BlowsDeps) {
    this.#deps = deps;
  }

  /** Strikes one; what it holds is taken back later. */
  async strike(blow: Blow): Promise<void> {
    const nowhere = { poolId: null, replicaId: null, taskId: null };
    const struck: Struck = { blow, fromMs: Date.now(), untilMs: Number.POSITIVE_INFINITY, ...nowhere, note: '' };
    this.struck.push(struck);
    const release = await this.#act(struck, blow.kind.act);
    const held = release()
      .catch((error: unknown) => void this.#failures.push(error))
      .finally(() => {
        struck.untilMs = Date.now();
        this.#held.delete(held);
      });
    this.#held.add(held);
  }

  /** Engines start well again. */
  async cureStarts(): Promise<void> {
    await rm(this.#deps.startFaults, { recursive: true, force: true });
    await mkdir(this.#deps.startFaults);
  }

  /** Takes back everything but the faults of every start. @throws when something could not be. */
  async takeBack(): Promise<void> {
    await Promise.all(this.#held);
    for (const { endpoint } of await this.#ready()) await setFaults(endpoint, 'none').catch(() => {});
    if (this.#failures.length > 0) throw new AggregateError(this.#failures, 'blows could not be taken back');
  }

  /** @returns what takes it back; resolves when that is done. */
  async #act(struck: Struck, act: Act): Promise<() => Promise<void>> {
    switch (act.on) {
      case 'engine':
        return this.#switchOn(struck, act);
      case 'start':
        return this.#spoilStart(struck, act);
      case 'process':
        return this.#signal(struck, act);
      case 'control plane':
        await this.#hitControlPlane(struck, act.how);
        return nothing;
      case 'database':
        return this.#killDatabase(struck);
      case 'operator':
        return this.#operate(struck, act.does);
    }
  }

  async #switchOn(struck: Struck, { fault }: Act & { on: 'engine' }): Promise<() => Promise<void>> {
    const { blow } = struck;
    const spec = faultSpec(fault, blow);
    const target = await this.#target(struck, ({ endpoint }) => setFaults(endpoint, spec));
    struck.note = spec;
    this.#switched.set(target.pid, struck);
    if (fault === 'ignore-cancel') await this.#cancelOn(struck, target);
    if (fault === 'ignore-sigterm') struck.note += `, restart ${await this.#deps.plane.restartReplica(target.id)}`;
    return async () => {
      await delay(blow.holdMs);
      if (this.#switched.get(target.pid) !== struck) return;
      this.#switched.delete(target.pid);
      await setFaults(target.endpoint, 'none').catch(() => {}); // it may have died of it
    };
  }

  async #cancelOn(struck: Struck, target: Target): Promise<void> {
    const sql = 'SELECT task_id AS id FROM leases WHERE replica_id = $1 AND released_at IS NULL LIMIT 1';
    const [task] = await this.#deps.database.query<{ id: string }>(sql, [target.id]);
    struck.taskId = task?.id ?? null;
    struck.note += task === undefined ? ', nothing to cancel' : `, cancel ${await this.#deps.plane.cancel(task.id)}`;
  }

  async #spoilStart(struck: Struck, { fault, by, always }: Act & { on: 'start' }): Promise<() => Promise<void>> {
    const { startFaults } = this.#deps;
    const target = await this.#target(struck);
    const file = join(startFaults, target.id);
    const starts = always === true ? null : 1;
    await writeFile(file, JSON.stringify({ faults: [faultSpec(fault, struck.blow)], starts }));
    const former = this.#leaderOf(target.id);
    if (by === 'operator') struck.note = await this.#deps.plane.restartReplica(target.id);
    else if (former !== null) sendSignal(former.pid, 'SIGKILL');
    return async () => {
      if (always === true) return;
      const successor = async () => {
        const leader = this.#leaderOf(target.id);
        return leader !== null && leader.mark !== former?.mark;
      };
      if (!(await pollUntil(successor, { everyMs: 50, deadlineMs: START_TAKEN_MS }))) struck.note = 'did not start';
      else if (fault === 'never-ready') await this.#endUnready(target.id);
      await rm(file, { force: true });
    };
  }

  async #endUnready(replicaId: string): Promise<void> {
    const leader = this.#leaderOf(replicaId);
    await delay(NEVER_READY_MS);
    if (leader !== null && isAlive(leader.pid, leader.startTimeTicks)) sendSignal(leader.pid, 'SIGKILL');
  }

  async #signal(struck: Struck, { signal, goesOn }: Act & { on: 'process' }): Promise<() => Promise<void>> {
    const target = await this.#target(struck);
    const engine = this.#leaderOf(target.id);
    if (engine === null) {
      struck.note = 'has just gone';
      return nothing;
    }
    sendSignal(engine.pid, signal);
    if (goesOn !== true) return nothing;
    return async () => {
      await delay(struck.blow.holdMs);
      if (isAlive(engine.pid, engine.startTimeTicks)) sendSignal(engine.pid, 'SIGCONT');
    };
  }

  async #hitControlPlane(struck: Struck, how: (Act & { on: 'control plane' })['how']): Promise<void> {
    const { plane } = this.#deps;
    const { holdMs, tokens } = struck.blow;
    switch (how) {
      case 'killed':
        return plane.restart('SIGKILL');
      case 'killed twice':
        return plane.restart('SIGKILL', () => plane.killedStart(300 + tokens * 20));
      case 'killed unaware':
        await this.#startUnrecorded(struck);
        return plane.restart('SIGKILL');
      case 'stopped and started':
        return plane.restart('SIGTERM');
      case 'paused':
        return plane.pause(holdMs);
    }
  }

  /** Resolves when an engine has been started while there is no database to write that down in. */
  async #startUnrecorded(struck: Struck): Promise<void> {
    const { id } = await this.#target(struck);
    const engine = this.#leaderOf(id);
    await this.#killDatabase(struck);
    if (engine !== null) sendSignal(engine.pid, 'SIGKILL');
    const successor = async () => ![undefined, engine?.mark].includes(this.#leaderOf(id)?.mark);
    const seen = await pollUntil(successor, { everyMs: 2, deadlineMs: STARTED_ANEW_MS });
    struck.note = seen ? 'an engine had just been started' : 'no engine was started';
  }

  async #killDatabase(struck: Struck): Promise<() => Promise<void>> {
    const { database } = this.#deps;
    const { pid } = database;
    if (pid === null) throw new Error('PostgreSQL does not run');
    sendSignal(pid, 'SIGKILL');
    struck.note = `pid ${pid}`;
    return async () => {
      await database.query('SELECT 1');
    };
  }

  async #operate(struck: Struck, does: (Act & { on: 'operator' })['does']): Promise<() => Promise<void>> {
    const { plane, someTask } = this.#deps;
    if (does === 'cancel') {
      struck.taskId = someTask();
      struck.note = struck.taskId === null ? 'no task' : await plane.cancel(struck.taskId);
      return nothing;
    }
    if (does === 'restart') {
      const target = await this.#target(struck);
      struck.note = await plane.restartReplica(target.id);
      return nothing;
    }
    const { pool, holdMs } = struck.blow;
    struck.poolId = pool;
    struck.note = await plane.drain(pool, DRAIN_DEADLINE_MS);
    return async () => {
      await delay(holdMs);
      await plane.resume(pool);
    };
  }

  /** The preferred replica, or the next one that is ready and takes what is to be done to it. */
  async #target(struck: Struck, work: (target: Target) => Promise<void> = async () => {}): Promise<Target> {
    const { blow } = struck;
    const possible = poolsFor(blow.kind, this.#deps.pools);
    let found: Target | null = null;
    const look = async () => {
      const ready = (await this.#ready()).filter(({ poolId }) => possible.some((pool) => pool === poolId));
      const preferred = `${blow.pool}-${blow.ordinal}`;
      const at = Math.max(
        0,
        ready.findIndex(({ id }) => id >= preferred),
      );
      for (const target of [...ready.slice(at), ...ready.slice(0, at)]) {
        if (
          !(await work(target).then(
            () => true,
            () => false,
          ))
        )
          continue;
        found = target;
        return true;
      }
      return false;
    };
    await pollUntil(look, { everyMs: 100, deadlineMs: FIND_MS });
    return this.#noted(struck, found);
  }

  #noted(struck: Struck, target: Target | null): Target {
    if (target === null) throw new Error(`no replica was ready for blow ${struck.blow.number} in ${FIND_MS} ms`);
    struck.replicaId = target.id;
    struck.poolId = target.poolId;
    return target;
  }

  #ready(): Promise<Target[]> {
    return this.#deps.database.query<Target & Record<string, unknown>>(
      `SELECT id, pool_id AS "poolId", endpoint, pid FROM replicas
       WHERE state = 'READY' AND endpoint IS NOT NULL AND pid IS NOT NULL ORDER BY id`,
    );
  }

  #leaderOf(replicaId: string): EngineSeen | null {
    return this.#deps.watch.engines().find((engine) => engine.replicaId === replicaId && engine.leads) ?? null;
  }
}

async function nothing(): Promise<void> {}

async function setFaults(endpoint: string, fault: string): Promise<void> {
  const answer = await fetch(`${endpoint}/sim/control`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ fault }),
    signal: AbortSignal.timeout(1_500),
  });
  if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
  await answer.arrayBuffer();
}
