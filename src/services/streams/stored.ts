/** Stored chunks back into events, for readers that come after the live log is gone. */
import { eventAfter, type StreamEvent } from '../../core/frame.js';
import type { Database } from '../../store/database.js';
import { readLog, type StoredChunk } from '../../store/tasks.js';

const PAGE_CHUNKS = 256;

/** The log is written by us alone, so its payloads have the shape of the events they were made from. */
export function storedEvent(chunk: StoredChunk): StreamEvent {
  const { kind, lastSeq: seq, firstSeq, atMs, payload } = chunk;
  if (kind === 'tokens') {
    return { kind, seq, atMs, firstIndex: firstSeq - 1, tokens: payload as readonly string[] };
  }
  return { kind, seq, atMs, ...(payload as object) } as StreamEvent;
}

/** The events of a page that a reader with everything up to `afterSeq` misses, in order. */
export function eventsPast(chunks: readonly StoredChunk[], afterSeq: number): StreamEvent[] {
  const events: StreamEvent[] = [];
  for (const chunk of chunks) {
    const event = storedEvent(chunk);
    const missing = event.kind === 'seam' ? event : eventAfter(event, afterSeq);
    if (missing !== null) events.push(missing);
  }
  return events;
}

/** The whole stored log of a task, page by page. */
export async function* storedPages(
  db: Database,
  task: { readonly id: string; readonly chunks: number },
): AsyncGenerator<readonly StoredChunk[]> {
  for (let afterOrd = -1; afterOrd < task.chunks - 1; ) {
    const chunks = await readLog(db, task.id, { afterOrd, afterSeq: -1, limit: PAGE_CHUNKS });
    const last = chunks[chunks.length - 1];
    if (last === undefined) return;
    yield chunks;
    afterOrd = last.ord;
  }
}

/** The tokens of a task's log so far. */
export async function loggedTokens(
  db: Database,
  task: { readonly id: string; readonly chunks: number },
): Promise<string[]> {
  const tokens: string[] = [];
  for await (const chunks of storedPages(db, task)) {
    for (const chunk of chunks) {
      if (chunk.kind === 'tokens') for (const text of chunk.payload as readonly string[]) tokens.push(text);
    }
  }
  return tokens;
}

/** What a task's log says so far, for the transcript of a task that ends without running again. */
export async function loggedText(
  db: Database,
  task: { readonly id: string; readonly chunks: number },
): Promise<string> {
  return (await loggedTokens(db, task)).join('');
}
