/**
 * The way to Postgres: three `pg` pools, and the Prisma client on top of the first for GraphQL's reads.
 *
 * - main: everything that is acknowledged to somebody; a commit is on disk when it answers.
 * - relaxed: claims and token appends, with synchronous_commit off. They are acknowledged to nobody, and the log of
 *   Postgres is sequential: a crash of the server loses at most the last of them, as if they had not happened yet, and
 *   every later synchronous commit makes all earlier ones durable.
 * - lease: renewals alone, so that load on the others can never starve them.
 */
import { PrismaPg } from '@prisma/adapter-pg';
import pg from 'pg';
import { type Refusal, RefusalError, unavailable } from '../core/errors.js';
import { PrismaClient } from './generated/prisma/client.js';

const CONNECT_TIMEOUT_MS = 5_000;
const STATEMENT_TIMEOUT_MS = 30_000;
const LEASE_STATEMENT_TIMEOUT_MS = 2_500;
/** How much longer than the server we wait for a statement: a host that vanished sends no word, and no reset. */
const SILENCE_MS = 1_000;

/**
 * Claims and appends find their rows by index, in order. Statements are planned once per connection, maybe while the
 * tables are empty, so plans that a grown table would punish are ruled out.
 */
const RELAXED_OPTIONS = '-c synchronous_commit=off -c enable_seqscan=off -c enable_bitmapscan=off';

/** SQLSTATE classes that mean "the server is not there for us now": connection, resources, shutdown, read-only. */
const UNAVAILABLE_STATES = /^(08|53|57P|25006)/;
const UNAVAILABLE_SYSCALLS = new Set(['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH']);
/** Of `pg` itself, which has no codes. */
const UNAVAILABLE_WORDS =
  /Connection terminated|timeout exceeded when trying to connect|Client has encountered a connection error|Query read timeout/;

function isUnavailable(error: unknown): boolean {
  if (!(error instanceof Error)) return false;
  const code = 'code' in error && typeof error.code === 'string' ? error.code : '';
  if (UNAVAILABLE_STATES.test(code) || UNAVAILABLE_SYSCALLS.has(code)) return true;
  return UNAVAILABLE_WORDS.test(error.message);
}

const DATABASE_AWAY: Refusal = unavailable(
  'POOL_UNAVAILABLE',
  'the database does not answer; whether this request was written is not known, and it does no harm to repeat it',
  2_000,
);

/**
 * What a crash of the server loses, it forgets: the numbers of leases too, which their holders still know. So each
 * connection that claims begins far beyond all that can be lost, which is less than a second of claims. One by one: who
 * sets a sequence may set it back behind numbers that others took meanwhile.
 */
const LEAP_LEASES = `
BEGIN; SET LOCAL synchronous_commit = on;
SELECT count(nextval(seq)) FROM to_regclass('leases_id_seq') seq, generate_series(1, 4096) WHERE seq IS NOT NULL;
COMMIT`;

async function leapLeases(client: pg.ClientBase): Promise<void> {
  await client.query(LEAP_LEASES);
}

function deadline(ms: number) {
  return { statement_timeout: ms, query_timeout: ms + SILENCE_MS };
}

/** One parameterised statement. `name` makes it a prepared one, kept per connection. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}

/** What a pool has open at this moment. */
export interface OpenConnections {
  readonly kind: 'main' | 'relaxed' | 'lease';
  /** By queries, or on their way to one. */
  readonly taken: number;
  readonly idle: number;
}

export class Database implements AsyncDisposable {
  readonly #main: pg.Pool;
  readonly #relaxed: pg.Pool;
  readonly #lease: pg.Pool;
  readonly prisma: PrismaClient;

  /** @param onIdleError told of failures on idle connections, which belong to no query. */
  constructor(url: string, onIdleError: (error: Error) => void) {
    const shared = {
      connectionString: url,
      connectionTimeoutMillis: CONNECT_TIMEOUT_MS,
      idle_in_transaction_session_timeout: 10_000,
      keepAlive: true,
    };
    this.#main = new pg.Pool({
      ...shared,
      max: 10,
      ...deadline(STATEMENT_TIMEOUT_MS),
      application_name: 'llama-orch',
    });
    this.#relaxed = new pg.Pool({
      ...shared,
      max: 4,
      ...deadline(STATEMENT_TIMEOUT_MS),
      options: RELAXED_OPTIONS,
      application_name: 'llama-orch streams',
      onConnect: leapLeases,
    });
    this.#lease = new pg.Pool({
      ...shared,
      max: 2,
      ...deadline(LEASE_STATEMENT_TIMEOUT_MS),
      application_name: 'llama-orch leases',
    });
    for (const pool of [this.#main, this.#relaxed, this.#lease]) pool.on('error', onIdleError);
    this.prisma = new PrismaClient({
      adapter: new PrismaPg(this.#main, { disposeExternalPool: false }),
      errorFormat: 'minimal',
    });
  }

  /** Runs one statement on the shared pool. A database that is away is a refusal, retriable; anything else is a bug. */
  query<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return run<Row>(this.#main, statement, values);
  }

  /** The same, for writes that may be lost in a crash of the database as if they had not happened yet. */
  relaxedQuery<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return run<Row>(this.#relaxed, statement, values);
  }

  /** The same on the connections that only leases use. */
  leaseQuery<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]): Promise<Row[]> {
    return run<Row>(this.#lease, statement, values);
  }

  get connections(): readonly OpenConnections[] {
    const pools = { main: this.#main, relaxed: this.#relaxed, lease: this.#lease };
    const kinds = ['main', 'relaxed', 'lease'] as const;
    return kinds.map((kind) => {
      const { totalCount, idleCount } = pools[kind];
      return { kind, taken: totalCount - idleCount, idle: idleCount };
    });
  }

  /** Where connections made from now on go. */
  get url(): string {
    return this.#main.options.connectionString ?? '';
  }

  /** The server came back at another address: connections made from now on go there. */
  moveTo(url: string): void {
    for (const pool of [this.#main, this.#relaxed, this.#lease]) pool.options.connectionString = url;
  }

  async close(): Promise<void> {
    await this.prisma.$disconnect();
    await Promise.all([this.#main.end(), this.#relaxed.end(), this.#lease.end()]);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

async function run<Row extends pg.QueryResultRow>(
  pool: pg.Pool,
  statement: Statement,
  values: readonly unknown[],
): Promise<Row[]> {
  try {
    const result = await pool.query<Row>({ name: statement.name, text: statement.text, values: [...values] });
    return result.rows;
  } catch (error) {
    if (isUnavailable(error)) throw new RefusalError(DATABASE_AWAY, { cause: error });
    throw error;
  }
}
