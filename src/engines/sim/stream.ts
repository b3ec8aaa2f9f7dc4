/**
 * One completion as a stream of server-sent events, for every protocol: when the head goes out, events in step with
 * the decoding, keep-alive comments, and the faults of the wire. A protocol says only what its events look like.
 */
import { setImmediate } from 'node:timers/promises';
import { type Completion, type DecodeReport, emptyReport } from './engine.js';
import type { FaultSet, TokenFault } from './faults.js';
import { type Call, failureOf, finish, write } from './http.js';
import { detokenize } from './model.js';
import type { SimToken } from './tokens.js';

export interface StreamFrames {
  readonly headers: Readonly<Record<string, string>>;
  /** What the head waits for: nothing, a slot, or the first event. Until it is out an error has a status of its own. */
  readonly headWaitsFor: 'nothing' | 'slot' | 'event';
  /** A comment for a stream that has been silent for so long. */
  readonly keepAlive: { readonly comment: string; readonly afterMs: number } | null;
  /** The whole event of one token, blank line included; '' when this protocol sends none for it. */
  token(token: SimToken): string;
  /** The closing events; '' for none. */
  last(report: DecodeReport): string;
  /** An error as the engine tells it in mid-stream, with whatever it sends after that. */
  error(message: string): string;
}

/** Faults of one event, and what becomes of it. */
const EVENT_FAULTS = {
  'bad-json-at-token': (event) => `${event.slice(0, Math.floor(event.trimEnd().length / 2))}\n\n`,
  'bad-sse-at-token': () => '<html><body><h1>502 Bad Gateway</h1></body></html>\n\n',
  'duplicate-at-token': (event) => event + event,
  'missing-at-token': () => '',
  'long-line-at-token': () => `data: ${'x'.repeat(LONG_LINE_BYTES)}\n\n`,
} satisfies Partial<Record<TokenFault, (event: string) => string>>;
/** Of one event too, but the bytes are exchanged after encoding. */
const BAD_BYTE = 'bad-utf8-at-token';
type EventFault = keyof typeof EVENT_FAULTS | typeof BAD_BYTE;
const EVENT_FAULT_NAMES = [...Object.keys(EVENT_FAULTS), BAD_BYTE] as readonly EventFault[];

const LONG_LINE_BYTES = 10 * 1024 * 1024;
/** Stands in a token's text for a byte that is never part of UTF-8. A private character: no text has it. */
const BAD_BYTE_MARK = '\u{F8FE}';
const SIMULATED_ERROR = 'Simulated error.';

/** Throws what went wrong before the head was sent; EngineFailed after it becomes the protocol's error event. */
export async function streamCompletion(call: Call, completion: Completion, frames: StreamFrames): Promise<void> {
  const { engine, response } = call;
  const report = emptyReport();
  const events = new EventWriter(frames, engine.faults);
  const keepAlive = startKeepAlive(call, frames);
  try {
    if (frames.headWaitsFor === 'nothing') sendHead(call, frames);
    const client = { ...call, onSlot: () => onSlot(call, frames) };
    for await (const batch of engine.decode(completion, report, client)) {
      if (await endedByFault(call, frames, events.sentTokens)) return;
      await writeEvents(call, frames, events.ofTokens(batch));
      keepAlive?.refresh();
    }
    if (await endedByFault(call, frames, events.sentTokens)) return;
    await writeEvents(call, frames, events.closing(report));
    await finish(response);
  } catch (error) {
    const failure = failureOf(call.signal);
    if (failure === null || !response.headersSent) throw error;
    await finish(response, frames.error(failure.message));
  } finally {
    clearInterval(keepAlive ?? undefined);
  }
}

export interface Whole {
  readonly tokens: readonly SimToken[];
  readonly text: string;
  readonly report: DecodeReport;
}

/** Decodes a completion whose answer is one body. Bytes at its end that make no character become U+FFFD. */
export async function decodeWhole(call: Call, completion: Completion): Promise<Whole> {
  const report = emptyReport();
  const tokens: SimToken[] = [];
  for await (const batch of call.engine.decode(completion, report, call)) tokens.push(...batch);
  const isCut = report.end.reason === 'word' && completion.stop.text !== 'kept';
  const text = isCut ? tokens.map((token) => token.text).join('') : detokenize(tokens.map(({ id }) => id));
  return { tokens, text, report };
}

/** A stream that is nothing but an error, for a protocol that refuses with status 200. */
export async function streamError(
  call: Call,
  frames: Pick<StreamFrames, 'headers' | 'error'>,
  message: string,
): Promise<void> {
  sendHead(call, frames);
  await finish(call.response, frames.error(message));
}

function sendHead({ response }: Call, { headers }: Pick<StreamFrames, 'headers'>): void {
  if (response.headersSent || response.destroyed) return;
  response.writeHead(200, headers);
  response.flushHeaders();
}

async function onSlot(call: Call, frames: StreamFrames): Promise<void> {
  const { faults } = call.engine;
  const hangs = (): boolean => faults.has('hang-after-headers');
  if (frames.headWaitsFor === 'slot' || hangs()) sendHead(call, frames);
  await faults.waitWhile(hangs, call.signal);
}

async function writeEvents(call: Call, frames: StreamFrames, events: string | Buffer): Promise<void> {
  if (events.length === 0) return;
  sendHead(call, frames);
  await write(call, events);
}

async function endedByFault(call: Call, frames: StreamFrames, sentTokens: number): Promise<boolean> {
  const { response, engine } = call;
  const isError = engine.faults.strikesAt('error-frame-at-token', sentTokens);
  if (!isError && !engine.faults.strikesAt('eof-at-token', sentTokens)) return false;
  sendHead(call, frames);
  if (isError) {
    await finish(response, frames.error(SIMULATED_ERROR));
  } else {
    await setImmediate(); // lets the head out
    response.destroy();
  }
  return true;
}

function startKeepAlive({ response }: Call, { keepAlive }: StreamFrames): NodeJS.Timeout | null {
  if (keepAlive === null) return null;
  return setInterval(() => {
    if (response.headersSent && !response.writableEnded && !response.destroyed) response.write(keepAlive.comment);
  }, keepAlive.afterMs);
}

/** Turns tokens into the bytes of their events, and lets a fault of one event strike. */
class EventWriter {
  readonly #frames: StreamFrames;
  readonly #faults: FaultSet;
  #sentTokens = 0;
  /** Strikes the next event that there is: a token may have none. */
  #due: EventFault | null = null;
  /** A token's text has the mark, and no event has had it yet: a protocol may gather tokens. */
  #isMarked = false;

  constructor(frames: StreamFrames, faults: FaultSet) {
    this.#frames = frames;
    this.#faults = faults;
  }

  get sentTokens(): number {
    return this.#sentTokens;
  }

  ofTokens(batch: readonly SimToken[]): string | Buffer {
    // A batch ends where a fault may strike, so it is asked about once.
    this.#noteFault();
    this.#sentTokens += batch.length;
    let text = '';
    for (const token of batch) text += this.#due === null ? this.#frames.token(token) : this.#strike(this.#due, token);
    return this.#isMarked ? this.#spoil(text) : text;
  }

  closing(report: DecodeReport): string | Buffer {
    this.#noteFault();
    const events = this.#frames.last(report);
    if (this.#isMarked) return this.#spoil(events);
    if (this.#due === null || events === '') return events;
    if (this.#due !== BAD_BYTE) return EVENT_FAULTS[this.#due](events);
    const middle = Math.floor(events.trimEnd().length / 2);
    return aroundBadByte(events.slice(0, middle), events.slice(middle));
  }

  #noteFault(): void {
    for (const fault of EVENT_FAULT_NAMES) {
      if (this.#faults.strikesAt(fault, this.#sentTokens)) this.#due = fault;
    }
  }

  #strike(fault: EventFault, token: SimToken): string {
    if (fault === BAD_BYTE) {
      if (token.text === '') return this.#frames.token(token);
      this.#due = null;
      this.#isMarked = true;
      return this.#frames.token({ ...token, text: token.text + BAD_BYTE_MARK });
    }
    const event = this.#frames.token(token);
    if (event === '') return '';
    this.#due = null;
    return EVENT_FAULTS[fault](event);
  }

  #spoil(text: string): string | Buffer {
    const at = text.indexOf(BAD_BYTE_MARK);
    if (at === -1) return text;
    this.#isMarked = false;
    return aroundBadByte(text.slice(0, at), text.slice(at + BAD_BYTE_MARK.length));
  }
}

function aroundBadByte(before: string, after: string): Buffer {
  return Buffer.concat([Buffer.from(before), Buffer.of(0xff), Buffer.from(after)]);
}
