/** llama-server's embedding and reranking routes, which it serves only when started for them. */
import { z } from 'zod';
import type { SimEngine } from '../engine.js';
import { type Route, readBody, sendJson } from '../http.js';
import { embed, rerankScore, tokenize } from '../model.js';
import { LlamaError, parseBody } from './bodies.js';

const textsSchema = z.union([z.string(), z.array(z.string()).min(1)]);
const embeddingSchema = z.object({
  input: textsSchema.optional(),
  content: textsSchema.optional(),
  encoding_format: z.enum(['float', 'base64']).default('float'),
});
const rerankSchema = z.object({
  query: z.string(),
  documents: z.array(z.string()).optional(),
  /** The same in the manner of Text Embeddings Inference, which also wants a bare array back. */
  texts: z.array(z.string()).optional(),
  return_text: z.boolean().default(false),
  top_n: z.number().int().positive().optional(),
});

function refuseDisabled(engine: SimEngine, what: 'embeddings' | 'reranking'): void {
  if (engine.config.embedding) return;
  const message = `This server does not support ${what}. Start it with \`--${what}\``;
  throw new LlamaError(501, 'not_supported_error', message);
}

/** Tokens of the texts, each with the begin-of-sequence token before it. */
function usageOf(engine: SimEngine, texts: readonly string[]): Readonly<Record<string, number>> {
  const tokens = engine.toldTokens(texts.reduce((sum, text) => sum + tokenize(text).length + 1, 0));
  return { prompt_tokens: tokens, total_tokens: tokens };
}

function textsOf({ input, content }: z.infer<typeof embeddingSchema>): readonly string[] {
  const texts = input ?? content;
  if (texts === undefined) {
    throw new LlamaError(400, 'invalid_request_error', '"input" or "content" must be provided');
  }
  return typeof texts === 'string' ? [texts] : texts;
}

/** `/embedding`: a bare array, each vector in an array of its own. */
export const nativeEmbeddings: Route = async ({ engine, request, response }) => {
  refuseDisabled(engine, 'embeddings');
  const texts = textsOf(parseBody(await readBody(request), embeddingSchema));
  const vectors = texts.map((text, index) => ({ index, embedding: [embed(engine.config.model, text)] }));
  sendJson(response, 200, vectors);
};

export const openAiEmbeddings: Route = async ({ engine, request, response }) => {
  refuseDisabled(engine, 'embeddings');
  const body = parseBody(await readBody(request), embeddingSchema);
  const texts = textsOf(body);
  const data = texts.map((text, index) => {
    const vector = embed(engine.config.model, text);
    if (body.encoding_format === 'float') return { embedding: vector, index, object: 'embedding' };
    // Little-endian 32-bit floats.
    const embedding = Buffer.from(Float32Array.from(vector).buffer).toString('base64');
    return { embedding, index, object: 'embedding', encoding_format: 'base64' };
  });
  sendJson(response, 200, { model: engine.toldModel, object: 'list', usage: usageOf(engine, texts), data });
};

export const rerank: Route = async ({ engine, request, response }) => {
  refuseDisabled(engine, 'reranking');
  const { query, documents, texts, ...body } = parseBody(
    await readBody(request),
    rerankSchema.partial({ query: true }),
  );
  if (query === undefined) throw new LlamaError(400, 'invalid_request_error', '"query" must be provided');
  const candidates = documents ?? texts;
  if (candidates === undefined || candidates.length === 0) {
    throw new LlamaError(400, 'invalid_request_error', '"documents" must be a non-empty string array');
  }
  const ranked = candidates
    .map((text, index) => ({ index, text, score: rerankScore(engine.config.model, query, text) }))
    .sort((one, other) => other.score - one.score)
    .slice(0, body.top_n);
  if (documents === undefined) {
    const results = ranked.map(({ index, text, score }) => ({ index, score, ...(body.return_text && { text }) }));
    return sendJson(response, 200, results);
  }
  const results = ranked.map(({ index, score }) => ({ index, relevance_score: score }));
  const usage = usageOf(
    engine,
    candidates.map((text) => `${query}${text}`),
  );
  sendJson(response, 200, { model: engine.toldModel, object: 'list', usage, results });
};
