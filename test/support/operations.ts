/** Operations as a client sees them: begun by a mutation, followed over WebSocket to their end. */
import { expect } from 'vitest';
import { gql, wsClient } from './graphql.js';

interface StepView {
  readonly name: string;
  readonly state: string;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly detail: string | null;
}

export interface OperationView {
  readonly kind: string;
  readonly state: string;
  readonly progress: number;
  readonly steps: readonly StepView[];
  readonly createdAt: string;
  readonly startedAt: string | null;
  readonly endedAt: string | null;
  readonly outcome: string | null;
  readonly error: { readonly code: string; readonly message: string } | null;
}

const FIELDS = `kind state progress steps { name state startedAt endedAt detail } createdAt startedAt endedAt outcome
  error { code message }`;
export const FOLLOW_OPERATION = `subscription ($id: ID!) { operation(id: $id) { ${FIELDS} } }`;

/** @returns what the mutation answers: an operation, or a refusal. */
export async function askFor(url: string, mutation: string) {
  const document = `mutation { op: ${mutation} { __typename ... on OperationAccepted { operation { id } }
    ... on Refusal { code message field } } }`;
  const answer = await gql(url, document);
  expect(answer.errors, JSON.stringify(answer)).toBeUndefined();
  return answer.data.op;
}

/** @returns the global id. */
export async function beginOperation(url: string, mutation: string): Promise<string> {
  const accepted = await askFor(url, mutation);
  expect(accepted.__typename, JSON.stringify(accepted)).toBe('OperationAccepted');
  return accepted.operation.id;
}

export async function readOperation(url: string, id: string): Promise<OperationView> {
  return (await gql(url, `query ($id: ID!) { operation(id: $id) { ${FIELDS} } }`, { id })).data.operation;
}

/** Everything the subscription tells, to its end. */
export async function followOperation(url: string, id: string): Promise<OperationView[]> {
  const client = wsClient(url);
  try {
    const views: OperationView[] = [];
    const query = { query: FOLLOW_OPERATION, variables: { id } };
    for await (const answer of client.iterate<{ operation: OperationView }>(query)) {
      expect(answer.errors).toBeUndefined();
      if (answer.data != null) views.push(answer.data.operation);
    }
    return views;
  } finally {
    await client.dispose();
  }
}

export async function endOf(url: string, id: string): Promise<OperationView> {
  const last = (await followOperation(url, id)).at(-1);
  if (last === undefined) throw new Error(`operation ${id} told nothing`);
  return last;
}

export function statesOf({ steps }: OperationView): Record<string, string> {
  return Object.fromEntries(steps.map((step) => [step.name, step.state]));
}

export function detailOf({ steps }: OperationView, name: string): string | null | undefined {
  return steps.find((step) => step.name === name)?.detail;
}

/** The sum over all labels. */
export async function metricOf(url: string, name: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`, { signal: AbortSignal.timeout(10_000) })).text();
  const lines = text.split('\n').filter((line) => line.startsWith(`${name}{`));
  return lines.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' '))), 0);
}
