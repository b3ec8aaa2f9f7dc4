/** Sessions: created and prolonged by admission, read and ended here. */
import { notFound, RefusalError } from '../core/errors.js';
import type { Database } from '../store/database.js';
import { deleteSession, getSession, type SessionRow } from '../store/sessions.js';

export class Sessions {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  /** null: there is none, or it has expired. */
  find(sessionId: string): Promise<SessionRow | null> {
    return getSession(this.#db, sessionId.toLowerCase());
  }

  /** @throws RefusalError not_found */
  async get(sessionId: string): Promise<SessionRow> {
    const session = await this.find(sessionId);
    if (session === null) throw new RefusalError(notFound('session_id', `session ${sessionId} not found`));
    return session;
  }

  /** @throws RefusalError not_found */
  async delete(sessionId: string): Promise<void> {
    if (await deleteSession(this.#db, sessionId.toLowerCase())) return;
    throw new RefusalError(notFound('session_id', `session ${sessionId} not found`));
  }
}
