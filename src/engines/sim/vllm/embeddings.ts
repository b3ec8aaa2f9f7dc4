/**
 * vLLM's embedding and reranking routes. A real server has either these or the completions, by its model; here
 * `--embedding` adds them. Where they are missing their paths are unknown ones: 404.
 */
import { z } from 'zod';
import type { SimEngine } from '../engine.js';
import { type Route, readBody } from '../http.js';
import { embed, rerankScore, tokenize } from '../model.js';
import { usageOf } from './bodies.js';
import { checkModel, frameworkRefusal, parseBody } from './errors.js';
import { answerId, nowSeconds, sendJson } from './http.js';

const embeddingSchema = z.object({
  model: z.string().nullish(),
  input: z.union([z.string(), z.array(z.string()).min(1)]),
  encoding_format: z.enum(['float', 'base64']).default('float'),
});
const rerankSchema = z.object({
  model: z.string().nullish(),
  query: z.string(),
  documents: z.array(z.string()),
  /** 0: all. */
  top_n: z.number().int().nonnegative().default(0),
});

function refuseDisabled({ config }: SimEngine): void {
  if (!config.embedding) throw frameworkRefusal(404, 'Not Found');
}

/** Tokens of the texts, each with the begin-of-sequence token before it. */
function tokensOf(engine: SimEngine, texts: readonly string[]): number {
  return engine.toldTokens(texts.reduce((sum, text) => sum + tokenize(text).length + 1, 0));
}

export const embeddings: Route = async (call) => {
  const { engine, request, response } = call;
  refuseDisabled(engine);
  const body = parseBody(await readBody(request), embeddingSchema);
  checkModel(body.model, engine);
  const texts = typeof body.input === 'string' ? [body.input] : body.input;
  const data = texts.map((text, index) => {
    const vector = embed(engine.config.model, text);
    // Little-endian 32-bit floats.
    const encoded = () => Buffer.from(Float32Array.from(vector).buffer).toString('base64');
    return { index, object: 'embedding', embedding: body.encoding_format === 'float' ? vector : encoded() };
  });
  const usage = { ...usageOf(tokensOf(engine, texts), 0), prompt_tokens_details: null };
  const head = { id: answerId('embd', call), object: 'list', created: nowSeconds(engine), model: engine.toldModel };
  sendJson(response, 200, { ...head, data, usage });
};

export const rerank: Route = async (call) => {
  const { engine, request, response } = call;
  refuseDisabled(engine);
  const { model, query, documents, top_n: most } = parseBody(await readBody(request), rerankSchema);
  checkModel(model, engine);
  const results = documents
    .map((text, index) => ({
      index,
      document: { text, multi_modal: null },
      relevance_score: rerankScore(engine.config.model, query, text),
    }))
    .sort((one, other) => other.relevance_score - one.relevance_score)
    .slice(0, most === 0 ? undefined : most);
  const tokens = tokensOf(
    engine,
    documents.map((text) => `${query}${text}`),
  );
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  sendJson(response, 200, { id: answerId('rerank', call), model: engine.toldModel, usage, results });
};
