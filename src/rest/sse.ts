/** A task's stream as Server-Sent Events. `id:` lines carry the resume index; everything a reader missed goes in one write. */
import type { ServerResponse } from 'node:http';
import type { EndEvent, MetricsEvent, StreamEvent, TokensEvent } from '../core/frame.js';
import type { TaskReader } from '../services/streams/hub.js';
import { budgetMembers } from './budget.js';
import { failureOf } from './wire.js';

const KEEP_ALIVE_MS = 15_000;
const STALLED_CLIENT_MS = 60_000;

function frame(name: string, data: unknown, id: number | null): string {
  const idLine = id === null ? '' : `id: ${id}\n`;
  return `event: ${name}\n${idLine}data: ${JSON.stringify(data)}\n\n`;
}

function tokenFrames(event: TokensEvent, microbatch: boolean): string {
  if (microbatch && event.tokens.length > 1) {
    return frame('token', { batch: event.tokens.map((t, offset) => ({ t, i: event.firstIndex + offset })) }, event.seq);
  }
  let text = '';
  let index = event.firstIndex;
  for (const token of event.tokens) {
    text += `event: token\nid: ${index + 1}\ndata: {"t":${JSON.stringify(token)},"i":${index}}\n\n`;
    index += 1;
  }
  return text;
}

/** SSEMetrics; a member that nothing is known for is left out. */
function metricsOf(event: MetricsEvent): Record<string, unknown> {
  const { queueDepth, kvWarmth, onTimeProbability = null, budget = null } = event;
  return {
    queue_depth: queueDepth,
    kv_warmth: kvWarmth,
    ...(onTimeProbability !== null && { on_time_probability: onTimeProbability }),
    ...budgetMembers(budget),
  };
}

/** @param result of a task without tokens; undefined: it has none. */
function endFrame(event: EndEvent, result: unknown): string {
  const data = {
    tokens_out: event.tokensOut,
    decode_ms: event.decodeMs,
    decode_time_ms: event.decodeMs,
    ...(event.canceled && { canceled: true }),
    ...(event.finishReason === 'budget' && { finish_reason: 'budget' }),
    ...(result !== undefined && { result }),
  };
  return frame('end', data, event.seq);
}

export interface SseOptions {
  readonly microbatch: boolean;
  /** How often a reader hears that it is still served, ms. */
  readonly keepAliveMs?: number;
  /** Of the response, besides our own. */
  readonly headers: Readonly<Record<string, string>>;
  /** What an embedding or rerank task gave, by the id in its end. */
  readonly result: (resultId: string) => Promise<unknown>;
}

async function sseFrames(event: StreamEvent, { microbatch, result }: SseOptions): Promise<string> {
  switch (event.kind) {
    case 'started':
      return frame('started', { queue_position: event.queuePosition, predicted_start_ms: event.predictedStartMs }, 0);
    case 'tokens':
      return tokenFrames(event, microbatch);
    case 'metrics':
      return frame('metrics', metricsOf(event), null);
    case 'seam':
      // The old contract has no name for it; a comment harms nobody.
      return `: seam index=${event.index} attempt=${event.attempt} cause=${event.cause}\n\n`;
    case 'end':
      return endFrame(event, event.resultId === undefined ? undefined : await result(event.resultId));
    case 'error':
      return frame('error', failureOf(event.error), event.seq);
  }
}

/** Resolves when the socket takes more, or is gone; a client that takes nothing for too long is cut off, and can resume. */
function drained(res: ServerResponse): Promise<void> {
  if (res.destroyed) return Promise.resolve();
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      res.off('drain', done);
      res.off('close', done);
      resolve();
    };
    const timer = setTimeout(() => {
      res.destroy();
      done();
    }, STALLED_CLIENT_MS);
    res.on('drain', done);
    res.on('close', done);
  });
}

/** Streams until the terminal event, or until the client or the reader is gone. */
export async function pipeEvents(
  reader: Pick<TaskReader, 'next' | 'close'>,
  res: ServerResponse,
  options: SseOptions,
): Promise<void> {
  const onClose = () => reader.close();
  // Gone while the reader was opened: it is not told again.
  if (res.destroyed) return onClose();
  res.on('close', onClose);
  res.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-accel-buffering': 'no',
    ...options.headers,
  });
  res.flushHeaders();
  const keepAlive = setInterval(() => res.write(': ka\n\n'), options.keepAliveMs ?? KEEP_ALIVE_MS);
  try {
    for (let events = await reader.next(); events !== null && !res.destroyed; events = await reader.next()) {
      let text = '';
      for (const event of events) text += await sseFrames(event, options);
      if (!res.write(text)) await drained(res);
    }
  } finally {
    clearInterval(keepAlive);
    reader.close();
    res.off('close', onClose);
    res.end();
  }
}
