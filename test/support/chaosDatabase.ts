/** The built-in PostgreSQL of a data directory, as somebody beside the control plane sees it: it dies, moves and comes back. */
import pg from 'pg';
import { databaseUser, locateCluster, readPassword } from '../../src/host/pgCluster.js';
import { findPostmaster } from '../../src/host/pgPostmaster.js';
import { delay } from '../../src/runtime/wait.js';

const PATIENCE_MS = 30_000;
const AGAIN_MS = 100;
const SYSTEM_DIR = '/var/lib/llama-orch';

export class HomeDatabase {
  readonly #pgData: string;
  readonly #password: string;

  private constructor(pgData: string, password: string) {
    this.#pgData = pgData;
    this.#password = password;
  }

  /** Of a home in which a control plane has been started. */
  static async of(home: string): Promise<HomeDatabase> {
    const place = await locateCluster(home, SYSTEM_DIR);
    return new HomeDatabase(place.pgData, await readPassword(place));
  }

  /** null while none runs. */
  get pid(): number | null {
    return findPostmaster(this.#pgData)?.pid ?? null;
  }

  /** Asks again, for up to 30 s, while there is nobody to answer. */
  async query<Row extends pg.QueryResultRow>(text: string, values: unknown[] = []): Promise<Row[]> {
    const deadline = performance.now() + PATIENCE_MS;
    for (;;) {
      try {
        return await this.#ask<Row>(text, values);
      } catch (error) {
        const mistaken = error instanceof pg.DatabaseError && /^(22|23|42)/.test(error.code ?? '');
        if (mistaken || performance.now() > deadline) throw error;
      }
      await delay(AGAIN_MS);
    }
  }

  async #ask<Row extends pg.QueryResultRow>(text: string, values: unknown[]): Promise<Row[]> {
    const server = findPostmaster(this.#pgData);
    if (server === null) throw new Error('PostgreSQL does not run');
    const connectionString = `postgresql://${databaseUser}:${encodeURIComponent(this.#password)}@127.0.0.1:${server.port}/llama_orch`;
    const client = new pg.Client({ connectionString, connectionTimeoutMillis: 5_000, query_timeout: 10_000 });
    client.on('error', () => {}); // a connection that breaks fails the query too
    try {
      await client.connect();
      return (await client.query<Row>(text, values)).rows;
    } finally {
      await client.end().catch(() => {});
    }
  }
}
