/** Whether the texts of a task fit its context, counted by the tokenizer of the engine that will read them. */
import { checkPromptTokens, type TaskSubmission } from '../core/admission.js';
import { RefusalError, unavailable } from '../core/errors.js';
import { checkInputTokens } from '../core/workload.js';
import type { EngineAdapter } from '../engines/adapter.js';
import { EngineError } from '../engines/failure.js';
import type { Fleet } from './fleet.js';

/** Special tokens and prefix spaces that a tokenizer may add to the bytes of a text. */
const TOKENIZER_EXTRAS = 8;
/** For all texts of a task together. */
const TOKENIZE_DEADLINE_MS = 10_000;
/** Of a count that admission can do without. */
const QUICK_COUNT_MS = 1_000;
const COUNTED_AT_ONCE = 8;

/** The most tokens that the texts of a task have together. */
export interface TokenBound {
  readonly tokens: number;
  /** Counted by the engine's tokenizer. */
  readonly exact: boolean;
}

const INT32_MAX = 2 ** 31 - 1;

type Texts = Pick<TaskSubmission, 'prompt' | 'inputs'>;

/**
 * @param isCharged somebody pays for them: they are counted also where they fit for sure, if that is quick.
 * @throws RefusalError where they do not fit, and where nobody can count what may not.
 */
export async function checkTokens(
  fleet: Fleet,
  poolId: string,
  task: TaskSubmission,
  isCharged: boolean,
): Promise<TokenBound> {
  const adapter = fleet.ready(poolId)[0]?.adapter ?? null;
  const count = await (task.workload === 'completion' ? checkPrompt(adapter, task) : checkInputs(adapter, task));
  return count === null && isCharged ? boundTokens(fleet, poolId, task) : boundOf(task, count);
}

/** Counts where that is possible now, and quick; else it is the most that it can be. */
export async function boundTokens(fleet: Fleet, poolId: string, task: Texts): Promise<TokenBound> {
  const counts = fleet.ready(poolId)[0]?.adapter.countTokens(task.prompt, AbortSignal.timeout(QUICK_COUNT_MS));
  return boundOf(task, (await counts?.catch(() => null)) ?? null);
}

/** No tokenizer makes more of a text than it has bytes, but for what it adds. A query is read with each document. */
function boundOf({ prompt, inputs }: Texts, count: number | null): TokenBound {
  const query = count ?? Buffer.byteLength(prompt) + TOKENIZER_EXTRAS;
  if (inputs.length === 0) return { tokens: query, exact: count !== null };
  const tokens = inputs.reduce((sum, text) => sum + query + Buffer.byteLength(text) + TOKENIZER_EXTRAS, 0);
  // What its column holds: a long query with many documents comes to more, and fits no context.
  return { tokens: Math.min(tokens, INT32_MAX), exact: false };
}

/** Asks the engine's tokenizer, unless the prompt is so short that no tokenizer could make it too long. null: not counted. */
async function checkPrompt(adapter: EngineAdapter | null, task: TaskSubmission): Promise<number | null> {
  if (Buffer.byteLength(task.prompt) + TOKENIZER_EXTRAS + task.maxTokens <= task.ctx) return null;
  if (adapter === null) {
    if (task.maxTokens < task.ctx) return null; // Nobody can count now; the engine itself will refuse what does not fit.
    const message = 'no engine can count tokens';
    throw new RefusalError(checkPromptTokens(0, task) ?? unavailable('POOL_UNREADY', message, 1000));
  }
  const count = await counted(adapter.countTokens(task.prompt, AbortSignal.timeout(TOKENIZE_DEADLINE_MS)));
  if (count === null) return null; // This engine has no tokenizer to ask; it refuses by itself what does not fit.
  const broken = checkPromptTokens(count, task);
  if (broken !== null) throw new RefusalError(broken);
  return count;
}

/** The same for each text to embed, and each document with the query before it. */
async function checkInputs(adapter: EngineAdapter | null, { prompt, inputs, ctx }: TaskSubmission): Promise<null> {
  const most = ctx - Buffer.byteLength(prompt) - TOKENIZER_EXTRAS;
  const unsure = inputs.flatMap((text, index) => (Buffer.byteLength(text) > most ? [{ text, index }] : []));
  if (unsure.length === 0 || adapter === null) return null;
  const signal = AbortSignal.timeout(TOKENIZE_DEADLINE_MS);
  const query = prompt === '' ? 0 : await counted(adapter.countTokens(prompt, signal));
  for (let from = 0; from < unsure.length; from += COUNTED_AT_ONCE) {
    const group = unsure.slice(from, from + COUNTED_AT_ONCE);
    const counts = await Promise.all(group.map(({ text }) => counted(adapter.countTokens(text, signal))));
    for (const [at, { index }] of group.entries()) {
      const count = counts[at] ?? null;
      if (count === null || query === null) return null;
      const broken = checkInputTokens(index, query + count, ctx);
      if (broken !== null) throw new RefusalError(broken);
    }
  }
  return null;
}

async function counted(counting: Promise<number | null>): Promise<number | null> {
  try {
    return await counting;
  } catch (error) {
    if (!(error instanceof EngineError) && !(error instanceof DOMException)) throw error;
    const refusal = unavailable('POOL_UNREADY', 'the engine did not count the tokens of the task; try again', 1000);
    throw new RefusalError(refusal, { cause: error });
  }
}
