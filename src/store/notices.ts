/** LISTEN and NOTIFY on a connection of their own. A notice is a hint: whoever gets none finds out at its next look. */
import pg from 'pg';
import { delay, within } from '../runtime/wait.js';
import type { Database, Statement } from './database.js';

const CHANNEL = 'llama_orch_wake';
const CONNECT_DEADLINE_MS = 5_000;
/** A connection whose other end is gone says nothing; it is asked, and given up when it does not answer. */
const KEEP_ALIVE_MS = 5_000;
const ANSWER_DEADLINE_MS = 5_000;
const GOODBYE_MS = 1_000;

const NOTIFY: Statement = {
  name: 'notice_send',
  text: `SELECT pg_notify('${CHANNEL}', n.payload) FROM unnest($1::text[]) AS n(payload)`,
};

export async function notify(db: Database, payloads: readonly string[]): Promise<void> {
  await db.relaxedQuery(NOTIFY, [payloads]);
}

export interface Listener {
  /** It hears from now on; what was told before, was not heard. */
  readonly onReady: () => void;
  readonly onNotice: (payload: string) => void;
}

/** Listens until the abort. @throws when the connection is lost or does not come about; to be called again then. */
export async function listen(db: Database, listener: Listener, signal: AbortSignal): Promise<void> {
  const client = new pg.Client({
    connectionString: db.url,
    connectionTimeoutMillis: CONNECT_DEADLINE_MS,
    query_timeout: ANSWER_DEADLINE_MS,
    keepAlive: true,
    application_name: 'llama-orch wakes',
  });
  const lost = new AbortController();
  client.on('error', (error) => lost.abort(error)).on('end', () => lost.abort());
  client.on('notification', ({ payload }) => listener.onNotice(payload ?? ''));
  try {
    await client.connect();
    await client.query(`LISTEN ${CHANNEL}`);
    listener.onReady();
    using over = within(null, signal, lost.signal);
    while (!over.signal.aborted) {
      await delay(KEEP_ALIVE_MS, over.signal);
      if (!over.signal.aborted) await client.query('SELECT 1');
    }
    if (!signal.aborted) throw new Error('the connection that listens for other nodes was lost');
  } finally {
    await goodbye(client);
  }
}

/** One whose other end is gone is not waited for. */
async function goodbye(client: pg.Client): Promise<void> {
  const over = new AbortController();
  await Promise.race([client.end().catch(() => {}), delay(GOODBYE_MS, over.signal)]);
  over.abort();
}
