/** The public doors of a control plane, with a record of all that went through them. */
import { type GraphQLAnswer, gql, sseSubscription } from '../support/graphql.js';
import { readStream, type SseFrame } from '../support/rest.js';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON, or text where it is none. */
  readonly body: unknown;
}

const ANSWER_MS = 20_000;
/** A scenario asks again and again until it sees what it waits for; the last that it saw tell most. */
const MAX_RECORDS = 500;

export class Doors {
  readonly url: string;
  readonly #records: unknown[] = [];

  constructor(url: string) {
    this.url = url;
  }

  /** The newest last. */
  records(): readonly unknown[] {
    return this.#records;
  }

  async rest(
    method: string,
    path: string,
    body?: string,
    headers: Readonly<Record<string, string>> = {},
  ): Promise<Answer> {
    const response = await fetch(`${this.url}${path}`, {
      method,
      headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
      ...(body !== undefined && { body }),
      signal: AbortSignal.timeout(ANSWER_MS),
    });
    const text = await response.text();
    const answer = { status: response.status, headers: Object.fromEntries(response.headers), body: parsed(text) };
    this.#record({ door: 'rest', method, path, body: parsed(body ?? ''), answer });
    return answer;
  }

  async graphql(query: string, variables: Record<string, unknown> = {}): Promise<GraphQLAnswer> {
    const answer = await gql(this.url, query, variables);
    this.#record({ door: 'graphql', query, variables, answer });
    return answer;
  }

  /** All that a GraphQL subscription tells, to its end. */
  async subscribe(query: string, variables: Record<string, unknown> = {}): Promise<GraphQLAnswer[]> {
    const answers = await sseSubscription(this.url, query, variables);
    this.#record({ door: 'graphql-sse', query, variables, answers });
    return answers;
  }

  /** @param after event id to go on from. */
  stream(taskId: string, after?: number): TaskReader {
    const reader = new TaskReader(this.url, taskId, after);
    this.#record({ door: 'rest-sse', taskId, after, frames: reader });
    return reader;
  }

  #record(record: object): void {
    if (this.#records.length >= MAX_RECORDS) this.#records.shift();
    this.#records.push({ at: new Date().toISOString(), ...record });
  }
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

/** Reads the stream of a task over REST, from now on and in the background. */
export class TaskReader {
  /** To the end of the stream, or to why it could not be read. */
  readonly ended: Promise<Error | null>;
  #frames: readonly SseFrame[] = [];
  #isLeft = false;

  constructor(url: string, taskId: string, after: number | undefined) {
    const until = (_frame: SseFrame, all: readonly SseFrame[]): boolean => {
      this.#frames = all;
      return this.#isLeft;
    };
    const reading = readStream(url, taskId, { until, ...(after !== undefined && { after }) });
    this.ended = reading.then(
      () => null,
      (error: unknown) => (error instanceof Error ? error : new Error(String(error))),
    );
  }

  get frames(): readonly SseFrame[] {
    return this.#frames;
  }

  /** Cuts the connection with its next frame. */
  leave(): void {
    this.#isLeft = true;
  }

  toJSON(): unknown {
    return this.#frames;
  }
}
