/** llama-server's embedding and reranking routes, each of which it serves only when started for it. */
import { z } from 'zod';
import { embeddingOf, ranked, readTexts, toldRankTokens, toldTextTokens } from '../embedding.js';
import type { SimEngine } from '../engine.js';
import { type Route, readBody } from '../http.js';
import { LlamaError, parseBody, sendJson } from './bodies.js';

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

function refuseDisabled({ config }: SimEngine, what: 'embeddings' | 'reranking'): void {
  if (what === 'embeddings' ? config.embedding : config.reranking) return;
  const message = `This server does not support ${what}. Start it with \`--${what}\``;
  throw new LlamaError(501, 'not_supported_error', message);
}

const usageOf = (tokens: number) => ({ prompt_tokens: tokens, total_tokens: tokens });

function textsOf({ input, content }: z.infer<typeof embeddingSchema>): readonly string[] {
  const texts = input ?? content;
  if (texts === undefined) {
    throw new LlamaError(400, 'invalid_request_error', '"input" or "content" must be provided');
  }
  return typeof texts === 'string' ? [texts] : texts;
}

/** `/embedding`: a bare array, each vector in an array of its own. */
export const nativeEmbeddings: Route = async (call) => {
  const { engine, request, response } = call;
  refuseDisabled(engine, 'embeddings');
  const texts = textsOf(parseBody(await readBody(request), embeddingSchema));
  await readTexts(call, texts);
  const vectors = texts.map((text, index) => ({ index, embedding: [embeddingOf(engine, text, 'float')] }));
  sendJson(response, 200, vectors);
};

export const openAiEmbeddings: Route = async (call) => {
  const { engine, request, response } = call;
  refuseDisabled(engine, 'embeddings');
  const body = parseBody(await readBody(request), embeddingSchema);
  const texts = textsOf(body);
  await readTexts(call, texts);
  const format = body.encoding_format;
  const data = texts.map((text, index) => {
    const named = format === 'base64' && { encoding_format: format };
    return { embedding: embeddingOf(engine, text, format), index, object: 'embedding', ...named };
  });
  const usage = usageOf(toldTextTokens(engine, texts));
  sendJson(response, 200, { model: engine.toldModel, object: 'list', usage, data });
};

export const rerank: Route = async (call) => {
  const { engine, request, response } = call;
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
  await readTexts(call, [query, ...candidates]);
  const best = ranked(engine, query, candidates).slice(0, body.top_n);
  if (documents === undefined) {
    const results = best.map(({ index, text, score }) => ({ index, score, ...(body.return_text && { text }) }));
    return sendJson(response, 200, results);
  }
  const results = best.map(({ index, score }) => ({ index, relevance_score: score }));
  const usage = usageOf(toldRankTokens(engine, query, candidates));
  sendJson(response, 200, { model: engine.toldModel, object: 'list', usage, results });
};
