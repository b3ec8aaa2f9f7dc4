/** What a task may ask an engine for, and what goes with each kind: its texts, their bounds, its result. */
import { invalid, type Refusal } from './errors.js';

export const WORKLOADS = ['completion', 'embedding', 'rerank'] as const;
export type Workload = (typeof WORKLOADS)[number];

/** Of an engine or a pool: null where it takes such tasks, else what has to be done for it to take them. */
export type Offers = Readonly<Record<Workload, string | null>>;

export const NO_FIX = 'its engine does not tell how';

export function offersOf(taken: readonly Workload[], fixes: Offers): Offers {
  const offer = (workload: Workload) => (taken.includes(workload) ? null : (fixes[workload] ?? NO_FIX));
  return { completion: offer('completion'), embedding: offer('embedding'), rerank: offer('rerank') };
}

export function offered(offers: Offers): Workload[] {
  return WORKLOADS.filter((workload) => offers[workload] === null);
}

/** Texts to embed, or documents to rank, of one task. */
export const MAX_INPUTS = 1_024;
/** All texts of a task together, counted in UTF-16 units before any tokenizer sees them. */
export const MAX_TEXT_LENGTH = 4 * 1024 * 1024;

/** `prompt` is the query of a rerank task; `inputs` are texts to embed, or documents to rank. */
export interface Texts {
  readonly prompt: string;
  readonly inputs: readonly string[];
}

/** The texts as a task has them, from what a caller gave; null: left out. */
export function textsOf(
  workload: Workload,
  given: { readonly prompt: string | null; readonly inputs: readonly string[] | null },
): Texts {
  const inputs = given.inputs ?? [];
  if (workload === 'completion') return { prompt: given.prompt ?? inputs.join('\n'), inputs: [] };
  if (workload === 'embedding' && inputs.length === 0 && given.prompt !== null) {
    return { prompt: '', inputs: [given.prompt] };
  }
  return { prompt: given.prompt ?? '', inputs };
}

/** First broken rule, or null. */
export function checkTexts(workload: Workload, { prompt, inputs }: Texts): Refusal | null {
  return (workload === 'completion' ? null : checkInputs(workload, prompt, inputs)) ?? checkSizes(prompt, inputs);
}

function checkInputs(workload: 'embedding' | 'rerank', prompt: string, inputs: readonly string[]): Refusal | null {
  if (workload === 'embedding' && prompt !== '') {
    return invalid('prompt', 'must be left out of an embedding task that has inputs: each of those is embedded');
  }
  if (workload === 'rerank' && prompt === '') return invalid('prompt', 'must be the query of a rerank task');
  if (inputs.length === 0) {
    const what = workload === 'embedding' ? 'texts to embed' : 'documents to rank';
    return invalid('inputs', `must be the ${what}, at least one`);
  }
  if (inputs.length > MAX_INPUTS) return invalid('inputs', `are ${inputs.length}; at most ${MAX_INPUTS} are taken`);
  return null;
}

/** Text that UTF-8 and the database can hold: JSON can carry what they cannot. */
export function checkCharacters(field: string, text: string): Refusal | null {
  if (text.includes('\u0000')) return invalid(field, 'must not contain the NUL character');
  return text.isWellFormed() ? null : invalid(field, 'must not contain one half of a surrogate pair');
}

function checkSizes(prompt: string, inputs: readonly string[]): Refusal | null {
  const badPrompt = checkCharacters('prompt', prompt);
  if (badPrompt !== null) return badPrompt;
  if (prompt.length > MAX_TEXT_LENGTH) {
    return invalid('prompt', `is ${prompt.length} characters long; at most ${MAX_TEXT_LENGTH} are taken`);
  }
  for (const [index, text] of inputs.entries()) {
    const badInput = checkCharacters(`inputs.${index}`, text);
    if (badInput !== null) return badInput;
  }
  const length = inputs.reduce((sum, text) => sum + text.length, prompt.length);
  if (length <= MAX_TEXT_LENGTH) return null;
  return invalid('inputs', `are ${length} characters long together; at most ${MAX_TEXT_LENGTH} are taken`);
}

/** A text to embed must fit the context; so must a document, with the query before it. No silent truncation. */
export function checkInputTokens(index: number, tokens: number, ctx: number): Refusal | null {
  if (tokens <= ctx) return null;
  return invalid(`inputs.${index}`, `is ${tokens} tokens long, and the context is ${ctx}`);
}

/** Of what such a task gave, as JSON. */
export const MAX_RESULT_BYTES = 8 * 1024 * 1024;
/** Sent to an engine at once. */
const GROUP_INPUTS = 32;
const GROUP_LENGTH = 128 * 1024;

export interface Group {
  /** Index of its first input among all. */
  readonly first: number;
  readonly inputs: readonly string[];
}

/** The inputs in order, in groups that an engine is done with soon; a long one is a group by itself. */
export function groupsOf(inputs: readonly string[]): Group[] {
  const groups: { first: number; inputs: string[] }[] = [];
  let length = 0;
  for (const [index, text] of inputs.entries()) {
    const last = groups[groups.length - 1];
    length += text.length;
    if (last !== undefined && last.inputs.length < GROUP_INPUTS && length <= GROUP_LENGTH) {
      last.inputs.push(text);
    } else {
      groups.push({ first: index, inputs: [text] });
      length = text.length;
    }
  }
  return groups;
}

/** What an embedding or rerank task gave: vectors in the order of its inputs; or its documents by index, best first. */
export type TaskResult =
  | { readonly embeddings: readonly (readonly number[])[] }
  | { readonly ranking: readonly { readonly index: number; readonly score: number }[] };
