/**
 * The chunks of `POST /v1/completions` with `stream: true`.
 *
 * A chunk is `{"model":"m","choices":[{"text":" She","finish_reason":null,"token_ids":[2296],…}],"usage":{…}}`, and its
 * `completion_tokens` is the count so far. The last one has a `finish_reason`; then comes the usage of the whole with
 * no choices, then `[DONE]`. That mark also follows an error, so it is the end only after a finish reason. A chunk
 * carries several tokens when the server batches them, and no text while a character is incomplete.
 */
import type { Failures } from '../failure.js';
import { FrameReader, isCount, isRecord } from '../frames.js';

interface Chunk {
  readonly model: string;
  readonly choices: readonly unknown[];
  readonly usage?: unknown;
}

interface Choice {
  readonly text: string;
  readonly finish_reason?: unknown;
  readonly token_ids?: unknown;
}

interface Usage {
  readonly prompt_tokens: number;
  readonly completion_tokens: number;
}

/** `repetition` (its detection of loops) is an end that the model brought on itself. */
const FINISH_REASONS: Readonly<Record<string, 'stop' | 'length'>> = {
  stop: 'stop',
  length: 'length',
  repetition: 'stop',
};
const FAILED_REASONS: readonly unknown[] = ['abort', 'error'];

export class VllmFrames extends FrameReader {
  readonly #expectedModelId: string | undefined;
  /** Tokens so far: by the engine's count, or by the ids that came. */
  #count = 0;
  #finishReason: 'stop' | 'length' | null = null;
  #usage: Usage | null = null;

  constructor(failures: Failures, expectedModelId?: string) {
    super(failures);
    this.#expectedModelId = expectedModelId;
  }

  protected readOne(payload: string): void {
    if (payload === '[DONE]') return this.#done();
    const chunk = this.json(payload, isChunk);
    if (chunk === undefined) return;
    if (this.#expectedModelId !== undefined && chunk.model !== this.#expectedModelId) {
      return this.malformed(`it answers as model '${chunk.model}', not '${this.#expectedModelId}'`);
    }
    const usage = isUsage(chunk.usage) ? chunk.usage : null;
    const [choice] = chunk.choices;
    if (choice === undefined) this.#usage = usage;
    else if (isChoice(choice)) this.#choice(choice, usage);
    else this.malformed('a choice of unknown shape');
  }

  #choice(choice: Choice, usage: Usage | null): void {
    if (this.#finishReason !== null) return this.malformed('a token comes after the last one');
    const ids = Array.isArray(choice.token_ids) ? choice.token_ids.length : null;
    const verdict = this.#countOn(choice.text, ids, usage);
    if (verdict !== 'ok') return this.malformed(`a token is ${verdict} after number ${this.#count}`);
    if (choice.text !== '' || (ids !== null && ids > 0)) this.token(choice.text);
    this.#finish(choice.finish_reason);
  }

  /** Holds the count so far against the ids that came; without ids, a text stands for one token or more. */
  #countOn(text: string, ids: number | null, usage: Usage | null): 'ok' | 'repeated' | 'missing' {
    if (usage === null) {
      this.#count += ids ?? 0;
      return 'ok';
    }
    const came = usage.completion_tokens - this.#count;
    const least = ids ?? (text === '' ? 0 : 1);
    if (came < least) return 'repeated';
    if (ids !== null && came > ids) return 'missing';
    this.#count = usage.completion_tokens;
    return 'ok';
  }

  #finish(reason: unknown): void {
    if (reason === undefined || reason === null) return;
    const known = typeof reason === 'string' && Object.hasOwn(FINISH_REASONS, reason) ? FINISH_REASONS[reason] : null;
    if (known) {
      this.#finishReason = known;
    } else if (FAILED_REASONS.includes(reason)) {
      const type = String(reason);
      this.fail(this.failures.said({ status: 500, type, message: `the completion ends with '${type}'` }, this.phase));
    } else {
      this.malformed(`finish_reason is ${JSON.stringify(reason)}`);
    }
  }

  #done(): void {
    if (this.#finishReason === null) return this.malformed('[DONE] comes before a finish_reason');
    this.end({
      finishReason: this.#finishReason,
      tokensIn: this.#usage?.prompt_tokens ?? null,
      tokensOut: this.#usage?.completion_tokens ?? (this.#count > 0 ? this.#count : null),
      decodeMs: null,
    });
  }
}

function isChunk(value: unknown): value is Chunk {
  return isRecord(value) && typeof value.model === 'string' && Array.isArray(value.choices);
}

function isChoice(value: unknown): value is Choice {
  return isRecord(value) && typeof value.text === 'string';
}

function isUsage(value: unknown): value is Usage {
  return isRecord(value) && isCount(value.prompt_tokens) && isCount(value.completion_tokens);
}
