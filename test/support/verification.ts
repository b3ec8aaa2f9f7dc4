/** Receipts and verifications as a GraphQL client sees them. */
import { expect } from 'vitest';
import { gql } from './graphql.js';

export interface ReceiptView {
  readonly engineVersion: string;
  readonly claim: { readonly kind: string; readonly because: string };
  readonly coResidentMax: number | null;
  readonly tokens: number;
  readonly chainHash: string;
}

export interface VerificationView {
  readonly id: string;
  readonly verdict: string | null;
  readonly got: string | null;
  readonly rerun: { readonly taskId: string; readonly status: string } | null;
  readonly reasons: readonly { readonly code: string; readonly message: string }[];
}

const RECEIPT = `receipt { engineVersion modelId modelDigest launchArgs gpuUuids seed
  samplerProfile { version temperature topK topP minP } claim { kind because } coResidentMax tokens chainHash }`;
const VERIFICATION = `id verdict firstDivergentIndex expected got reasons { code message fix } task { taskId }
  rerun { taskId status priority verificationOf { id } }`;

export async function receiptOf(url: string, taskId: string): Promise<ReceiptView | null> {
  const answer = await gql(url, `query ($taskId: UUID!) { task(taskId: $taskId) { ${RECEIPT} } }`, { taskId });
  expect(answer.errors, JSON.stringify(answer)).toBeUndefined();
  return answer.data.task.receipt;
}

/** @returns the global id. */
export async function beginVerification(url: string, taskId: string): Promise<string> {
  const document = `mutation ($taskId: UUID!) { verifyTask(input: { taskId: $taskId }) {
    __typename ... on VerificationBegun { verification { id } } ... on Refusal { code message } } }`;
  const { data } = await gql(url, document, { taskId });
  expect(data.verifyTask.__typename, JSON.stringify(data)).toBe('VerificationBegun');
  return data.verifyTask.verification.id;
}

/** Looks until there is a verdict. */
export async function verdictOf(url: string, id: string): Promise<VerificationView> {
  const query = `query ($id: ID!) { node(id: $id) { ... on TaskVerification { ${VERIFICATION} } } }`;
  const read = async (): Promise<VerificationView> => (await gql(url, query, { id })).data.node;
  await expect.poll(async () => (await read()).verdict, { interval: 50 }).not.toBeNull();
  return read();
}
