/** A small client of the REST shim, with an SSE reader that keeps every frame as it came. */
import { randomUUID } from 'node:crypto';
import { createParser } from 'eventsource-parser';

export interface SseFrame {
  readonly event: string;
  readonly id: string | null;
  readonly data: Record<string, unknown>;
}

export function taskRequest(overrides: Record<string, unknown> = {}): Record<string, unknown> & { task_id: string } {
  return {
    task_id: randomUUID(),
    session_id: randomUUID(),
    workload: 'completion',
    model_ref: 'sim-7b',
    engine: 'llamacpp',
    ctx: 4096,
    priority: 'interactive',
    prompt: 'Tell me about the sea.',
    max_tokens: 20,
    deadline_ms: 60_000,
    ...overrides,
  };
}

export function ask(url: string, method: string, path: string, init: RequestInit = {}): Promise<Response> {
  return fetch(`${url}${path}`, { method, signal: AbortSignal.timeout(20_000), ...init });
}

export function get(url: string, path: string, headers: Record<string, string> = {}): Promise<Response> {
  return ask(url, 'GET', path, { headers });
}

export function post(
  url: string,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Response> {
  return ask(url, 'POST', path, {
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
}

/** Reads frames until the stream ends, or until `until` says it is enough (the connection is then cut). */
export async function readStream(
  url: string,
  taskId: string,
  options: {
    after?: number;
    until?: (frame: SseFrame, all: readonly SseFrame[]) => boolean;
    headers?: Readonly<Record<string, string>>;
    deadlineMs?: number;
  } = {},
): Promise<SseFrame[]> {
  const frames: SseFrame[] = [];
  const last: Record<string, string> = options.after === undefined ? {} : { 'last-event-id': String(options.after) };
  const headers = { ...last, ...options.headers };
  const signal = AbortSignal.timeout(options.deadlineMs ?? 25_000);
  const response = await fetch(`${url}/v1/tasks/${taskId}/stream`, { headers, signal });
  if (!response.ok || response.body === null)
    throw new Error(`stream answered ${response.status}: ${await response.text()}`);
  let enough = false;
  const parser = createParser({
    onEvent: ({ event, id, data }) => {
      if (enough) return;
      const frame = { event: event ?? '', id: id ?? null, data: JSON.parse(data) as Record<string, unknown> };
      frames.push(frame);
      enough = options.until?.(frame, frames) ?? false;
    },
  });
  const decoder = new TextDecoder();
  for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
    parser.feed(decoder.decode(chunk, { stream: true }));
    // Leaving the loop cancels the body, which closes the connection.
    if (enough) break;
  }
  return frames;
}

/** It is there once it has been given. */
export interface Reader {
  leave(): Promise<unknown>;
}

/** Reads a body that does not end by itself, until it leaves. */
export async function bodyReader(url: string, init: RequestInit = {}): Promise<Reader> {
  const cut = new AbortController();
  const response = await fetch(url, { ...init, signal: cut.signal });
  if (!response.ok) throw new Error(`${url} answered ${response.status}: ${await response.text()}`);
  const reading = response.text().catch(() => {});
  return {
    leave: () => {
      cut.abort();
      return reading;
    },
  };
}

export function tokensOf(frames: readonly SseFrame[]): string[] {
  return frames.filter((frame) => frame.event === 'token').map((frame) => String(frame.data.t));
}

export function indicesOf(frames: readonly SseFrame[]): number[] {
  return frames.filter((frame) => frame.event === 'token').map((frame) => Number(frame.data.i));
}
