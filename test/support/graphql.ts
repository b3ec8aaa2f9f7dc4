/** Raw GraphQL for tests: HTTP, SSE and WebSocket, with nothing hidden. */
import { createParser } from 'eventsource-parser';
import { type Client, createClient } from 'graphql-ws';
import { WebSocket } from 'ws';

export interface GraphQLAnswer {
  // biome-ignore lint/suspicious/noExplicitAny: tests read whatever shape their own document asked for.
  readonly data?: any;
  readonly errors?: readonly { readonly message: string; readonly extensions?: Record<string, unknown> }[];
}

export async function gql(
  url: string,
  query: string,
  variables: Record<string, unknown> = {},
  headers: Readonly<Record<string, string>> = {},
): Promise<GraphQLAnswer> {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query, variables }),
    signal: AbortSignal.timeout(20_000),
  });
  return (await response.json()) as GraphQLAnswer;
}

export function wsClient(url: string): Client {
  return createClient({ url: `${url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0 });
}

/** Everything a subscription gives over SSE, until it completes or `until` says it is enough. */
export async function sseSubscription(
  url: string,
  query: string,
  variables: Record<string, unknown> = {},
  options: {
    readonly headers?: Readonly<Record<string, string>>;
    /** Gets each as it comes, also when it breaks later. */
    readonly onAnswer?: (answer: GraphQLAnswer) => void;
    readonly deadlineMs?: number;
  } = {},
): Promise<GraphQLAnswer[]> {
  const response = await fetch(`${url}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', accept: 'text/event-stream', ...options.headers },
    body: JSON.stringify({ query, variables }),
    signal: AbortSignal.timeout(options.deadlineMs ?? 20_000),
  });
  const answers: GraphQLAnswer[] = [];
  const parser = createParser({
    onEvent: ({ event, data }) => {
      if (event !== 'next') return;
      const answer = JSON.parse(data) as GraphQLAnswer;
      answers.push(answer);
      options.onAnswer?.(answer);
    },
  });
  const decoder = new TextDecoder();
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    parser.feed(decoder.decode(chunk, { stream: true }));
  }
  return answers;
}
