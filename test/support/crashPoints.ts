/**
 * Deaths of the control plane at named points, without a word of it in the product: a trigger in its database waits for
 * a lock that the test holds, so the writing statement is done and not committed for as long as the test likes. There
 * the process is killed. Its transaction then commits, as if the answer had been lost on the way, or is taken back, as if
 * the death had come a moment earlier.
 */
import pg from 'pg';
import { pollUntil } from '../../src/runtime/wait.js';
import type { TestDatabase } from './database.js';

export type Fate = 'commits' | 'is lost';

export interface CrashPoint {
  readonly name: string;
  readonly on: 'INSERT' | 'UPDATE';
  /** What is true of a row of `tasks` once it is over that point; its columns as `$.column`. */
  readonly over: string;
}

export const INSERT: CrashPoint = { name: 'the insert', on: 'INSERT', over: '$.id IS NOT NULL' };
export const CLAIM: CrashPoint = { name: 'the claim', on: 'UPDATE', over: '$.attempts > 0' };
export const FIRST_TOKEN: CrashPoint = { name: 'the first token', on: 'UPDATE', over: '$.tokens_out > 0' };
export const END: CrashPoint = { name: 'the terminal write', on: 'UPDATE', over: '$.ended_at IS NOT NULL' };

/** The write that brings the stored log of a task to so many tokens. */
export function flushOf(tokens: number): CrashPoint {
  return { name: `the flush of token ${tokens}`, on: 'UPDATE', over: `$.tokens_out >= ${tokens}` };
}

const LOCK = 7_331;
const APPLICATION = 'llama-orch%';
const LOOK_EVERY_MS = 5;
const STOPPED_MS = 20_000;
const GONE_MS = 10_000;

export class CrashTrap implements AsyncDisposable {
  readonly #database: TestDatabase;
  readonly #holder: pg.Client;

  private constructor(database: TestDatabase, holder: pg.Client) {
    this.#database = database;
    this.#holder = holder;
  }

  static async in(database: TestDatabase): Promise<CrashTrap> {
    await database.query(`
      CREATE FUNCTION crash_here() RETURNS trigger LANGUAGE plpgsql AS
      $$ BEGIN PERFORM pg_advisory_xact_lock_shared(${LOCK}); RETURN NULL; END $$`);
    const holder = new pg.Client({ connectionString: database.url });
    holder.on('error', () => {}); // a connection that breaks fails what is asked of it too
    await holder.connect();
    return new CrashTrap(database, holder);
  }

  /** From now on whoever brings a task over that point waits there. */
  async arm({ on, over }: CrashPoint): Promise<void> {
    const [before, after] = [over.replaceAll('$', 'OLD'), over.replaceAll('$', 'NEW')];
    const when = on === 'INSERT' ? after : `${after} AND NOT (${before})`;
    await this.#database.query('DROP TRIGGER IF EXISTS crash_here ON tasks');
    await this.#database.query(
      `CREATE TRIGGER crash_here AFTER ${on} ON tasks FOR EACH ROW WHEN (${when}) EXECUTE FUNCTION crash_here()`,
    );
    await this.#holder.query('SELECT pg_advisory_lock($1)', [LOCK]);
  }

  /** Resolves once somebody waits at the point. */
  async sprung(): Promise<void> {
    const waits = async () => (await this.#waiting()).length > 0;
    if (!(await pollUntil(waits, { everyMs: LOOK_EVERY_MS, deadlineMs: STOPPED_MS })))
      throw new Error('nobody came to the crash point');
  }

  /** Decides about what waits there; its client is dead. Resolves once nothing of it goes on in the database. */
  async release(fate: Fate): Promise<void> {
    if (fate === 'commits') await this.#unlock();
    const isQuiet = async (): Promise<boolean> => {
      // Who waited for a row of the first comes to the point after it.
      for (const pid of await this.#waiting()) await this.#holder.query('SELECT pg_terminate_backend($1)', [pid]);
      const { rows } = await this.#holder.query(
        'SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE $1',
        [APPLICATION],
      );
      return rows.length === 0;
    };
    const options = { everyMs: LOOK_EVERY_MS, deadlineMs: GONE_MS };
    if (!(await pollUntil(isQuiet, options))) throw new Error('connections of a dead control plane go on');
    if (fate === 'is lost') await this.#unlock();
  }

  /** Whether any of these tasks is over the point. */
  async isOver({ over }: CrashPoint, taskIds: readonly string[]): Promise<boolean> {
    const condition = over.replaceAll('$', 't');
    const text = `SELECT count(*)::int AS over FROM tasks t WHERE t.id = ANY($1::uuid[]) AND ${condition}`;
    const [row] = await this.#database.query<{ over: number }>(text, [taskIds]);
    return (row?.over ?? 0) > 0;
  }

  async #unlock(): Promise<void> {
    await this.#holder.query('SELECT pg_advisory_unlock_all()');
  }

  async #waiting(): Promise<number[]> {
    const { rows } = await this.#holder.query<{ pid: number }>(
      `SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
       WHERE l.locktype = 'advisory' AND l.objid = $1 AND NOT l.granted AND d.datname = current_database()`,
      [LOCK],
    );
    return rows.map(({ pid }) => pid);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#holder.end().catch(() => {});
  }
}
