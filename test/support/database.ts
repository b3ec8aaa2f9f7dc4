/** A database of its own for each test file, cloned from the migrated template. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject } from 'vitest';
import { Database } from '../../src/store/database.js';

export const TEMPLATE = 'llama_orch_template';

export async function query<Row extends pg.QueryResultRow>(
  url: string,
  text: string,
  values: unknown[] = [],
): Promise<Row[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  try {
    return (await client.query<Row>(text, values)).rows;
  } finally {
    await client.end();
  }
}

export interface TestDatabase extends AsyncDisposable {
  readonly url: string;
  query<Row extends pg.QueryResultRow>(text: string, values?: unknown[]): Promise<Row[]>;
}

/** @param options.empty without our schema. */
export async function createDatabase(options: { readonly empty?: boolean } = {}): Promise<TestDatabase> {
  const admin = inject('postgresUrl');
  const name = `t_${randomBytes(6).toString('hex')}`;
  await query(admin, `CREATE DATABASE ${name} ${options.empty === true ? '' : `TEMPLATE ${TEMPLATE}`}`);
  const url = admin.replace(/[^/]*$/, name);
  return {
    url,
    query: (text, values) => query(url, text, values),
    [Symbol.asyncDispose]: async () => {
      await query(admin, `DROP DATABASE ${name} WITH (FORCE)`);
    },
  };
}

export async function openDatabase(): Promise<TestDatabase & { readonly db: Database }> {
  const database = await createDatabase();
  let closing = false;
  const db = new Database(database.url, (error) => {
    // A connection that is still saying goodbye is cut when its database is dropped.
    if (!closing) throw error;
  });
  return {
    ...database,
    db,
    [Symbol.asyncDispose]: async () => {
      closing = true;
      await db.close();
      await database[Symbol.asyncDispose]();
    },
  };
}
