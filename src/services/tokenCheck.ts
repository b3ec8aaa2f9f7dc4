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
const COUNTED_AT_ONCE = 8;

/** @throws RefusalError where they do not, and where nobody can count what may not fit. */
export async function checkTokens(fleet: Fleet, poolId: string, task: TaskSubmission): Promise<void> {
  const adapter = fleet.ready(poolId)[0]?.adapter ?? null;
  await (task.workload === 'completion' ? checkPrompt(adapter, task) : checkInputs(adapter, task));
}

/** Asks the engine's tokenizer, unless the prompt is so short that no tokenizer could make it too long. */
async function checkPrompt(adapter: EngineAdapter | null, task: TaskSubmission): Promise<void> {
  if (Buffer.byteLength(task.prompt) + TOKENIZER_EXTRAS + task.maxTokens <= task.ctx) return;
  if (adapter === null) {
    if (task.maxTokens < task.ctx) return; // Nobody can count now; the engine itself will refuse what does not fit.
    const message = 'no engine can count tokens';
    throw new RefusalError(checkPromptTokens(0, task) ?? unavailable('POOL_UNREADY', message, 1000));
  }
  const count = await counted(adapter.countTokens(task.prompt, AbortSignal.timeout(TOKENIZE_DEADLINE_MS)));
  if (count === null) return; // This engine has no tokenizer to ask; it refuses by itself what does not fit.
  const broken = checkPromptTokens(count, task);
  if (broken !== null) throw new RefusalError(broken);
}

/** The same for each text to embed, and each document with the query before it. */
async function checkInputs(adapter: EngineAdapter | null, { prompt, inputs, ctx }: TaskSubmission): Promise<void> {
  const most = ctx - Buffer.byteLength(prompt) - TOKENIZER_EXTRAS;
  const unsure = inputs.flatMap((text, index) => (Buffer.byteLength(text) > most ? [{ text, index }] : []));
  if (unsure.length === 0 || adapter === null) return;
  const signal = AbortSignal.timeout(TOKENIZE_DEADLINE_MS);
  const query = prompt === '' ? 0 : await counted(adapter.countTokens(prompt, signal));
  for (let from = 0; from < unsure.length; from += COUNTED_AT_ONCE) {
    const group = unsure.slice(from, from + COUNTED_AT_ONCE);
    const counts = await Promise.all(group.map(({ text }) => counted(adapter.countTokens(text, signal))));
    for (const [at, { index }] of group.entries()) {
      const count = counts[at] ?? null;
      if (count === null || query === null) return;
      const broken = checkInputTokens(index, query + count, ctx);
      if (broken !== null) throw new RefusalError(broken);
    }
  }
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
