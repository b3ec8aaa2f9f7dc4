/** What the protocols with embeddings and rerankings do alike. */
import { emptyReport, type SimEngine } from './engine.js';
import type { Call } from './http.js';
import { embed, GREEDY, rerankScore, tokenize } from './model.js';
import { NO_STOP } from './tokens.js';

/**
 * Reads texts in a slot, as a prompt is read, for as long as that takes; nothing is decoded. A fault that strikes at a token
 * strikes here at token 0.
 */
export async function readTexts(call: Call, texts: readonly string[]): Promise<void> {
  const completion = {
    prompt: '',
    promptTokens: texts.reduce((sum, text) => sum + tokenize(text).length + 1, 0),
    ...{ maxTokens: 0, seed: 0, sampling: GREEDY, idSlot: -1, stop: NO_STOP, settings: {} },
  };
  for await (const _none of call.engine.decode(completion, emptyReport(), call));
}

/** Tokens of the texts, each with the begin-of-sequence token before it, as an answer tells them. */
export function toldTextTokens(engine: SimEngine, texts: readonly string[]): number {
  return engine.toldTokens(texts.reduce((sum, text) => sum + tokenize(text).length + 1, 0));
}

/** Of one text; `base64`: of little-endian 32-bit floats. */
export function embeddingOf(
  { config }: SimEngine,
  text: string,
  format: 'float' | 'base64',
): readonly number[] | string {
  const vector = embed(config.model, text, config.embeddingDimensions);
  return format === 'float' ? vector : Buffer.from(Float32Array.from(vector).buffer).toString('base64');
}

/** Best first. */
export function ranked(
  { config }: SimEngine,
  query: string,
  documents: readonly string[],
): readonly { readonly index: number; readonly text: string; readonly score: number }[] {
  return documents
    .map((text, index) => ({ index, text, score: rerankScore(config.model, query, text) }))
    .sort((one, other) => other.score - one.score);
}

/** A query is read together with each of its documents. */
export function toldRankTokens(engine: SimEngine, query: string, documents: readonly string[]): number {
  return toldTextTokens(
    engine,
    documents.map((text) => `${query}${text}`),
  );
}
