/** The public doors of a control plane, with a record of all that went through them. */
import { type GraphQLAnswer, gql, sseSubscription } from '../support/graphql.js';
import { readStream, type SseFrame } from '../support/rest.js';
import { Metrics } from './metrics.js';
import type { Transcript } from './transcript.js';

export interface Answer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string>>;
  /** JSON, or text where it is none. */
  readonly body: unknown;
}

const ANSWER_MS = 20_000;
/** Of a stream that a scenario reads to its end. */
const STREAM_MS = 90_000;

type Headers = Readonly<Record<string, string>>;

export class Doors {
  readonly url: string;
  readonly #transcript: Transcript;
  /** What opens them where a token is asked for. */
  readonly #key: Headers;

  constructor(url: string, transcript: Transcript, token: string | undefined) {
    this.url = url;
    this.#transcript = transcript;
    this.#key = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  /** A request as its words say, with no token but one that its headers bring. */
  async bare(method: string, path: string, body?: string, headers: Headers = {}): Promise<Answer> {
    return this.#told({ door: 'rest', method, path, headers, body: parsed(body ?? '') }, async () => {
      const response = await fetch(`${this.url}${path}`, {
        method,
        headers: { ...(body !== undefined && { 'content-type': 'application/json' }), ...headers },
        ...(body !== undefined && { body }),
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const text = await response.text();
      return { status: response.status, headers: Object.fromEntries(response.headers), body: parsed(text) };
    });
  }

  /** With the token, where one is asked for. */
  rest(method: string, path: string, body?: string, headers: Headers = {}): Promise<Answer> {
    return this.bare(method, path, body, { ...this.#key, ...headers });
  }

  graphql(query: string, variables: Record<string, unknown> = {}): Promise<GraphQLAnswer> {
    return this.#told({ door: 'graphql', query, variables }, () => gql(this.url, query, variables, this.#key));
  }

  /** All that a GraphQL subscription tells, to its end. */
  subscribe(query: string, variables: Record<string, unknown> = {}): Promise<GraphQLAnswer[]> {
    const seen: GraphQLAnswer[] = [];
    const options = {
      headers: this.#key,
      onAnswer: (one: GraphQLAnswer) => void seen.push(one),
      deadlineMs: STREAM_MS,
    };
    return this.#told({ door: 'graphql-sse', query, variables, seen }, () =>
      sseSubscription(this.url, query, variables, options),
    );
  }

  /** A scrape. @param names those that it is made for; the transcript keeps no others. */
  async metrics(names: readonly string[] = []): Promise<Metrics> {
    const exchange = this.#transcript.begin({ door: 'metrics' });
    try {
      const response = await fetch(`${this.url}/metrics`, {
        headers: this.#key,
        signal: AbortSignal.timeout(ANSWER_MS),
      });
      const text = await response.text();
      if (!response.ok) throw new Error(`/metrics answered ${response.status}: ${text}`);
      const metrics = new Metrics(text);
      this.#transcript.end(exchange, { samples: metrics.linesOf(names) });
      return metrics;
    } catch (error) {
      this.#transcript.end(exchange, { error: String(error) });
      throw error;
    }
  }

  /** @param after event id to go on from. */
  stream(taskId: string, after?: number): TaskReader {
    const reader = new TaskReader(this.url, taskId, { headers: this.#key, ...(after !== undefined && { after }) });
    this.#transcript.begin({ door: 'rest-sse', taskId, after, stream: reader });
    return reader;
  }

  async #told<T>(asked: Record<string, unknown>, ask: () => Promise<T>): Promise<T> {
    const exchange = this.#transcript.begin(asked);
    try {
      const answer = await ask();
      this.#transcript.end(exchange, { answer });
      return answer;
    } catch (error) {
      this.#transcript.end(exchange, { error: String(error) });
      throw error;
    }
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
  #state = 'open';

  constructor(url: string, taskId: string, options: { readonly headers: Headers; readonly after?: number }) {
    const until = (_frame: SseFrame, all: readonly SseFrame[]): boolean => {
      this.#frames = all;
      return this.#isLeft;
    };
    const reading = readStream(url, taskId, { until, deadlineMs: STREAM_MS, ...options });
    this.ended = reading.then(
      () => {
        this.#state = 'ended';
        return null;
      },
      (error: unknown) => {
        this.#state = `broken: ${String(error)}`;
        return error instanceof Error ? error : new Error(String(error));
      },
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
    return { state: this.#state, frames: this.#frames };
  }
}
