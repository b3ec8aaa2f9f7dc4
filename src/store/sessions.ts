/** Sessions: written by admission, read and deleted here. An expired session is one that does not exist. */
import type { Database, Statement } from './database.js';

export interface SessionRow {
  readonly id: string;
  readonly turns: number;
  readonly createdAt: Date;
  readonly expiresAt: Date;
  readonly ttlMsRemaining: number;
}

const GET: Statement = {
  name: 'session_get',
  text: `
SELECT id, turns, created_at AS "createdAt", expires_at AS "expiresAt",
       (extract(epoch FROM expires_at - now()) * 1000)::bigint::float8 AS "ttlMsRemaining"
FROM sessions WHERE id = $1 AND expires_at > now()`,
};

export async function getSession(db: Database, sessionId: string): Promise<SessionRow | null> {
  return (await db.query<SessionRow>(GET, [sessionId]))[0] ?? null;
}

const DELETE: Statement = {
  name: 'session_delete',
  text: 'DELETE FROM sessions WHERE id = $1 RETURNING expires_at > now() AS live',
};

/** @returns false when there was no live session of that id. */
export async function deleteSession(db: Database, sessionId: string): Promise<boolean> {
  return (await db.query<{ live: boolean }>(DELETE, [sessionId]))[0]?.live ?? false;
}
