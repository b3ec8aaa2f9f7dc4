/**
 * vLLM's embedding and reranking routes. A real server has either these or the completions, by its model or by `--runner`,
 * which is obeyed here too; besides, `--embedding` adds both and `--reranking` the latter. Where they are missing their paths are unknown ones: 404.
 */
import { z } from 'zod';
import { embeddingOf, ranked, readTexts, toldRankTokens, toldTextTokens } from '../embedding.js';
import { type Route, readBody, sendJson } from '../http.js';
import { usageOf } from './bodies.js';
import { checkModel, frameworkRefusal, parseBody } from './errors.js';
import { answerId, nowSeconds } from './http.js';

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

function refuse(): never {
  throw frameworkRefusal(404, 'Not Found');
}

export const embeddings: Route = async (call) => {
  const { engine, request, response } = call;
  if (!engine.config.embedding) refuse();
  const body = parseBody(await readBody(request), embeddingSchema);
  checkModel(body.model, engine);
  const texts = typeof body.input === 'string' ? [body.input] : body.input;
  await readTexts(call, texts);
  const data = texts.map((text, index) => {
    return { index, object: 'embedding', embedding: embeddingOf(engine, text, body.encoding_format) };
  });
  const usage = { ...usageOf(toldTextTokens(engine, texts), 0), prompt_tokens_details: null };
  const head = { id: answerId('embd', call), object: 'list', created: nowSeconds(engine), model: engine.toldModel };
  sendJson(response, 200, { ...head, data, usage });
};

export const rerank: Route = async (call) => {
  const { engine, request, response } = call;
  if (!engine.config.embedding && !engine.config.reranking) refuse();
  const { model, query, documents, top_n: most } = parseBody(await readBody(request), rerankSchema);
  checkModel(model, engine);
  await readTexts(call, [query, ...documents]);
  const results = ranked(engine, query, documents)
    .slice(0, most === 0 ? undefined : most)
    .map(({ index, text, score }) => ({ index, document: { text, multi_modal: null }, relevance_score: score }));
  const tokens = toldRankTokens(engine, query, documents);
  const usage = { prompt_tokens: tokens, total_tokens: tokens };
  sendJson(response, 200, { id: answerId('rerank', call), model: engine.toldModel, usage, results });
};
