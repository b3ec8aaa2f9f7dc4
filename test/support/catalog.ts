/** Files with digests, and the catalog as its callers use it. */
import { createHash } from 'node:crypto';
import { expect } from 'vitest';
import { gql } from './graphql.js';
import { post } from './rest.js';

export function digestOf(bytes: Buffer): string {
  return `sha256:${createHash('sha256').update(bytes).digest('hex')}`;
}

export async function register(url: string, model: Record<string, unknown>): Promise<Record<string, unknown>> {
  const answer = await post(url, '/v1/catalog/models', model);
  expect(answer.status, await answer.clone().text()).toBe(201);
  return (await answer.json()) as Record<string, unknown>;
}

/** @returns the body of the answer with its HTTP status in `status`; a member of that name is `said`. */
export async function send(
  url: string,
  path: string,
  body: unknown = {},
): Promise<Record<string, unknown> & { status: number }> {
  const answer = await post(url, path, body);
  const text = await answer.text();
  const { status: said, ...rest } = (text === '' ? {} : JSON.parse(text)) as Record<string, unknown>;
  return { ...rest, ...(said !== undefined && { said }), status: answer.status };
}

export async function verificationOf(url: string, modelId: string) {
  const query = `query ($id: String!) { catalogModel(modelId: $id) { findings { code } verification { result digest reasons { code message } } } }`;
  return (await gql(url, query, { id: modelId })).data.catalogModel;
}
