/** Tasks that flow while blows fall: submitted until acknowledged, each followed by a reader that comes back. */
import { randomUUID } from 'node:crypto';
import type { Engine } from '../../src/core/errors.js';
import { MOST_TOKENS } from './chaosPlan.js';
import { pick } from './random.js';
import { readStream, taskRequest, tokensOf } from './rest.js';
import { ReturningReader, submitUntilAcknowledged } from './returningReader.js';

const WORKERS = 12;
const ACKNOWLEDGED_MS = 20_000;
/** Of each task, ms. */
export const DEADLINE_MS = 180_000;
/** For a reader that is left when the blows are over. */
const END_MS = 240_000;

/** What is asked: one answer of the simulator, which is the same however often it is asked. */
interface Question {
  readonly pool: Engine;
  readonly body: Readonly<Record<string, unknown>>;
  readonly strict: boolean;
}

export interface Asked {
  readonly question: Question;
  readonly reader: ReturningReader;
}

export function modelOf(pool: Engine): string {
  return `chaos-${pool}`;
}

function questionsOf(pool: Engine): Question[] {
  return [20, 40, 60, MOST_TOKENS].flatMap((max_tokens, seed) =>
    [true, false].map((strict) => ({
      ...{ pool, strict },
      body: {
        ...{ model_ref: modelOf(pool), engine: pool, prompt: `What of number ${seed}?`, max_tokens, seed },
        ...{ determinism: strict ? 'strict' : 'best_effort', deadline_ms: DEADLINE_MS },
      },
    })),
  );
}

export class Flow {
  readonly asked: Asked[] = [];
  /** Answers to submissions that were not an acknowledgement, by status. */
  readonly refusals = new Map<string, number>();
  /** Submissions given up: they may have been taken, or not. */
  neverAcknowledged = 0;
  readonly #url: () => string;
  readonly #chance: () => number;
  readonly #questions: readonly Question[];
  readonly #texts = new Map<Question, string>();
  readonly #over = new AbortController();
  readonly #abandoned = new AbortController();
  readonly #failures: unknown[] = [];
  #work: Promise<void>[] = [];

  constructor(url: () => string, pools: readonly Engine[], chance: () => number) {
    this.#url = url;
    this.#chance = chance;
    this.#questions = pools.flatMap(questionsOf);
  }

  /** Asks every question once, undisturbed. */
  async learn(): Promise<void> {
    for (const question of this.#questions) {
      const body = taskRequest(question.body);
      if (!(await submitUntilAcknowledged(this.#url, body, ACKNOWLEDGED_MS))) throw new Error('not acknowledged');
      const frames = await readStream(this.#url(), body.task_id);
      if (frames.at(-1)?.event !== 'end') throw new Error(`undisturbed, it ended ${JSON.stringify(frames.at(-1))}`);
      this.#texts.set(question, tokensOf(frames).join(''));
    }
  }

  /** The whole of the right answer. */
  textOf(question: Question): string {
    return this.#texts.get(question) ?? '';
  }

  start(): void {
    const work = () => this.#askOn().catch((error: unknown) => void this.#failures.push(error));
    this.#work = Array.from({ length: WORKERS }, work);
  }

  /** No new tasks; resolves when every reader has seen its end. Rejects when one does not. */
  async finish(): Promise<void> {
    this.#over.abort();
    await Promise.all(this.#work);
    if (this.#failures.length > 0) throw new AggregateError(this.#failures, 'tasks did not end');
  }

  /** Nobody waits for the ends any more. */
  abandon(): void {
    this.#over.abort();
    this.#abandoned.abort();
  }

  someTask(): string | null {
    const open = this.asked.filter(({ reader }) => !reader.ended);
    return open.length === 0 ? null : pick(this.#chance, open).reader.taskId;
  }

  async #askOn(): Promise<void> {
    while (!this.#over.signal.aborted) {
      const question = pick(this.#chance, this.#questions);
      const priority = this.#chance() < 0.5 ? 'interactive' : 'batch';
      const body = taskRequest({ ...question.body, task_id: randomUUID(), priority });
      const refused = (answer: Response | null) => {
        const status = answer === null ? 'no answer' : String(answer.status);
        this.refusals.set(status, (this.refusals.get(status) ?? 0) + 1);
      };
      if (!(await submitUntilAcknowledged(this.#url, body, ACKNOWLEDGED_MS, refused))) {
        this.neverAcknowledged += 1;
        continue;
      }
      const reader = new ReturningReader(body.task_id);
      this.asked.push({ question, reader });
      await reader.readToEnd(this.#url, END_MS, this.#abandoned.signal);
    }
  }
}
