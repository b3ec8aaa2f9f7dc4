/** Embeddings and rankings in the shapes that llama-server and vLLM share. */
import { z } from 'zod';
import type { EmbeddingRequest, Embeddings, Ranking, RerankRequest } from './adapter.js';
import type { EngineClient } from './client.js';
import type { Failures } from './failure.js';

const usageSchema = z.object({ prompt_tokens: z.number().int().nonnegative() });

const embeddingsSchema = z.object({
  data: z.array(z.object({ index: z.number().int(), embedding: z.array(z.number()) })),
  usage: usageSchema,
});

const rerankSchema = z.object({
  results: z.array(z.object({ index: z.number().int(), relevance_score: z.number() })),
  usage: usageSchema,
});

/** @param named what else the body needs, e.g. the model. */
export async function embedAt(
  client: EngineClient,
  { requestId, correlationId, inputs }: EmbeddingRequest,
  named: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Embeddings> {
  const body = { ...named, input: inputs, encoding_format: 'float' };
  const call = { method: 'POST', path: '/v1/embeddings', body } as const;
  const run = { requestId, correlationId, parts: inputs.length };
  const answer = await client.offered('embeddings', () => client.unary(run, call, embeddingsSchema, signal));
  return orderedVectors(answer, inputs.length, client.failures);
}

export async function rerankAt(
  client: EngineClient,
  { requestId, correlationId, query, documents }: RerankRequest,
  named: Readonly<Record<string, unknown>>,
  signal: AbortSignal,
): Promise<Ranking> {
  const call = { method: 'POST', path: '/v1/rerank', body: { ...named, query, documents } } as const;
  const run = { requestId, correlationId, parts: documents.length };
  const answer = await client.offered('reranking', () => client.unary(run, call, rerankSchema, signal));
  return rankingOf(answer, documents.length, client.failures);
}

/** Vectors in the order of the inputs. Throws EngineError when one is missing or doubled, or their lengths differ. */
export function orderedVectors(
  answer: z.infer<typeof embeddingsSchema>,
  inputs: number,
  failures: Failures,
): Embeddings {
  const vectors = new Map(answer.data.map(({ index, embedding }) => [index, embedding]));
  const ordered = Array.from({ length: inputs }, (_, index) => vectors.get(index) ?? []);
  const dimensions = ordered[0]?.length ?? 0;
  if (answer.data.length !== inputs || ordered.some((vector) => vector.length === 0 || vector.length !== dimensions)) {
    throw failures.malformed(`${answer.data.length} embeddings for ${inputs} inputs`, 'before_first_token');
  }
  return { vectors: ordered, tokensIn: answer.usage.prompt_tokens };
}

/** Best first; ties in the order of the documents. Throws EngineError when a document is missing, doubled or unknown. */
export function rankingOf(answer: z.infer<typeof rerankSchema>, documents: number, failures: Failures): Ranking {
  const results = answer.results.map(({ index, relevance_score: score }) => ({ index, score }));
  const indices = new Set(results.map(({ index }) => index));
  if (
    results.length !== documents ||
    indices.size !== documents ||
    results.some(({ index }) => index < 0 || index >= documents)
  ) {
    throw failures.malformed(`a ranking of ${documents} documents that is not one of them`, 'before_first_token');
  }
  results.sort((a, b) => b.score - a.score || a.index - b.index);
  return { results, tokensIn: answer.usage.prompt_tokens };
}
