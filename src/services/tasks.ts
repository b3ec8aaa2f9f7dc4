/** Questions about one task that are not a row read. */
import type { Database } from '../store/database.js';
import { getTask, readResult, type TaskRow, tasksAhead } from '../store/tasks.js';
import { loggedText } from './streams/stored.js';

export class Tasks {
  readonly #db: Database;

  constructor(db: Database) {
    this.#db = db;
  }

  get(taskId: string): Promise<TaskRow | null> {
    return getTask(this.#db, taskId.toLowerCase());
  }

  /** How many tasks are served before it; null when it does not wait. */
  ahead(taskId: string): Promise<number | null> {
    return tasksAhead(this.#db, taskId);
  }

  /** What an embedding or rerank task gave, by the id in its `end`. */
  result(resultId: string): Promise<unknown> {
    return readResult(this.#db, resultId);
  }

  /** All text that is durable so far. */
  text(task: { readonly id: string; readonly chunks: number }): Promise<string> {
    return loggedText(this.#db, task);
  }
}
