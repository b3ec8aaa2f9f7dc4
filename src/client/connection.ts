/** A connection of a client to the control plane's GraphQL, and a task's event stream that survives its loss. */
import type { TypedDocumentNode } from '@graphql-typed-document-node/core';
import { print } from 'graphql';
import { type Client, createClient } from 'graphql-ws';
import { WebSocket } from 'ws';
import type { TaskEventsSubscription } from './gql/graphql.js';
import { taskEventsDocument } from './operations.js';

export type TaskEvent = TaskEventsSubscription['taskEvents'];

/** The server answered, and said no. */
export class RequestError extends Error {
  constructor(messages: readonly string[]) {
    super(messages.join('; '));
    this.name = 'RequestError';
  }
}

/** @param url of the server, http://host:port */
export function connect(url: string, token: string | null): Client {
  return createClient({
    url: `${url.replace(/^http/, 'ws')}/graphql`,
    webSocketImpl: WebSocket,
    connectionParams: token === null ? {} : { token },
    // A stream that is retried blindly would begin again: we resume it ourselves, with its index.
    retryAttempts: 0,
    lazyCloseTimeout: 1_000,
  });
}

/** One query or mutation. @throws RequestError, or the error of the connection. */
export async function request<Result, Variables extends Record<string, unknown>>(
  client: Client,
  document: TypedDocumentNode<Result, Variables>,
  variables: Variables,
): Promise<Result> {
  for await (const result of client.iterate<Result>({ query: print(document), variables })) {
    if (result.errors !== undefined) throw new RequestError(result.errors.map((error) => error.message));
    if (result.data !== undefined && result.data !== null) return result.data;
  }
  throw new RequestError(['the server gave no answer']);
}

function isTerminal(event: TaskEvent): boolean {
  return event.__typename === 'TaskEnded' || event.__typename === 'TaskFailed';
}

/**
 * Every event of a task, once and in order, to the terminal one; a lost connection is taken up where it broke.
 * @param options.patienceMs how long a server that is away is waited for, before its absence is thrown.
 */
export async function* followTask(
  client: Client,
  taskId: string,
  options: { readonly patienceMs: number; readonly retryEveryMs: number; readonly onLost: () => void },
): AsyncGenerator<TaskEvent> {
  let after: number | null = null;
  let lostSinceMs: number | null = null;
  for (;;) {
    try {
      const variables: Record<string, unknown> = after === null ? { taskId } : { taskId, after };
      for await (const result of client.iterate<TaskEventsSubscription>({
        query: print(taskEventsDocument),
        variables,
      })) {
        if (result.errors !== undefined) throw new RequestError(result.errors.map((error) => error.message));
        const event: TaskEvent | undefined = result.data?.taskEvents;
        if (event === undefined) continue;
        lostSinceMs = null;
        after = event.seq;
        yield event;
        if (isTerminal(event)) return;
      }
    } catch (error) {
      if (error instanceof RequestError) throw error;
      if (lostSinceMs !== null && performance.now() - lostSinceMs > options.patienceMs) throw error;
    }
    if (lostSinceMs === null) options.onLost();
    lostSinceMs ??= performance.now();
    await new Promise((resolve) => setTimeout(resolve, options.retryEveryMs));
  }
}
