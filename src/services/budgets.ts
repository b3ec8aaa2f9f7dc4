/** Budgets of sessions: set, and what is left of them. Reserving is admission's, settling the database's. */
import { BUDGET_KINDS, type BudgetLeft, type BudgetLimits, budgetText, MAX_LIMIT } from '../core/budget.js';
import { invalid, RefusalError } from '../core/errors.js';
import type { SessionRules } from '../core/session.js';
import { leftForTask, setLimits } from '../store/budgets.js';
import type { Database } from '../store/database.js';
import { getSession, type SessionRow } from '../store/sessions.js';
import type { Telemetry } from '../telemetry/events.js';

/** What a caller calls each of them. */
const FIELDS = { tokens: 'tokens', timeMs: 'time_ms', costMicros: 'cost' } as const;

export interface BudgetsDeps {
  readonly db: Database;
  readonly telemetry: Telemetry;
  readonly sessions: SessionRules;
}

export class Budgets {
  readonly #deps: BudgetsDeps;

  constructor(deps: BudgetsDeps) {
    this.#deps = deps;
  }

  /**
   * Sets what a session may spend, from its beginning on; a session that is not there begins. What is left out stays.
   * @throws RefusalError invalid: more than that is spent and reserved already, and nothing is changed then.
   */
  async set(sessionId: string, limits: Partial<BudgetLimits>): Promise<SessionRow> {
    const id = sessionId.toLowerCase();
    for (const kind of BUDGET_KINDS) {
      const limit = limits[kind] ?? 0;
      if (Number.isInteger(limit) && limit >= 0 && limit <= MAX_LIMIT) continue;
      throw new RefusalError(invalid(FIELDS[kind], `must be from 0 to ${budgetText(kind, MAX_LIMIT)}`));
    }
    const { db, sessions } = this.#deps;
    const isSet = await setLimits(db, id, limits, sessions);
    const session = await getSession(db, id);
    if (session === null) throw new RefusalError(invalid('session_id', `session ${sessionId} has expired; try again`));
    if (!isSet) throw new RefusalError(tooLow(session, limits));
    return session;
  }

  /** As the session of a task has it; null: that has no budget, or cannot be asked now. Never rejects. */
  async ofTask(taskId: string): Promise<BudgetLeft | null> {
    return leftForTask(this.#deps.db, taskId.toLowerCase()).catch((error: unknown) => {
      this.#deps.telemetry.backgroundFailure('budget', error);
      return null;
    });
  }
}

function tooLow({ id, budget }: SessionRow, limits: Partial<BudgetLimits>) {
  for (const kind of BUDGET_KINDS) {
    const [spent, reserved, limit] = [budget.spent[kind], budget.reserved[kind], limits[kind] ?? null];
    if (limit === null || limit >= spent + reserved) continue;
    const [least, both] = [budgetText(kind, spent + reserved), budgetText(kind, reserved)];
    const fix = reserved > 0 ? `; ${both} of it are reserved by tasks under way: cancel them, or wait for them` : '';
    return invalid(FIELDS[kind], `session ${id} has spent and reserved ${least}: no less can be its budget${fix}`);
  }
  return invalid('session_id', `the budget of session ${id} changed meanwhile; try again`);
}
