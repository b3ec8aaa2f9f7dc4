/**
 * One engine endpoint: what all dialects do in the same way. Unary calls are repeated while that is harmless, streams
 * are watched by deadlines and bounds, and the completions under way are known, so that health can tell whether they
 * move and a cancel can tell whether what still runs is ours.
 */
import { performance } from 'node:perf_hooks';
import type { z } from 'zod';
import { ENGINE_RETRY, retryDelayMs } from '../core/backoff.js';
import { isStalled } from '../core/health.js';
import { delay, within } from '../runtime/wait.js';
import type { CancelOutcome, CompletionRequest, EngineEnd, EngineFrame, EngineHealth, TokenFrame } from './adapter.js';
import { EngineError, type ErrorTable, Failures } from './failure.js';
import type { FrameReader } from './frames.js';
import { CallScope, EngineHttpClient, explain, type HttpCall, release } from './http.js';
import { DEFAULT_MAX_EVENT_CHARS, SseError, SseReader } from './sse.js';
import { type ClaimedEnd, settleEnd } from './usage.js';

export interface EngineEndpoint {
  readonly baseUrl: string;
  readonly apiKey?: string;
  /** Longest silence inside a completion before the engine counts as hung; also the wait for its first token. */
  readonly idleTimeoutMs?: number;
  readonly unaryTimeoutMs?: number;
  /** Most connections at once; at least the slots and a few more for probes. */
  readonly connections?: number;
  /** The model it is known to serve: a stream in another model's name is refused. */
  readonly expectedModelId?: string;
}

const DEFAULT_IDLE_TIMEOUT_MS = 60_000;
/** HTU-1001. */
const DEFAULT_UNARY_TIMEOUT_MS = 30_000;
const DEFAULT_CONNECTIONS = 136;
/** A token frame is around 130 bytes; a piece of text escaped in JSON stays far below this. */
const MAX_BYTES_PER_TOKEN = 4_096;
/** Frames may repeat the prompt and the whole text; JSON writes one UTF-16 unit in at most six characters. */
const MAX_ESCAPED_CHARS = 6;
const MAX_TEXT_CHARS_PER_TOKEN = 16;
const LOOK_EVERY_MS = 25;
/** An engine may not show yet what it was sent just now: free is then what two looks this far apart show. */
const SETTLED_MS = 100;
/** Of completions that were dropped before their first frame, so many are remembered for their cancel. */
const MAX_UNSEEN = 1_000;

interface Run {
  readonly abort: AbortController;
  /** As how many requests the engine may count it, at most. */
  readonly parts: number;
  /** Its answer comes whole: it has no frames. */
  readonly unary: boolean;
  /** It has given a frame, so the engine surely has it. */
  seen: boolean;
}

interface UnaryRun {
  readonly requestId: string;
  readonly correlationId: string | undefined;
  /** As how many requests the engine may count it, at most. */
  readonly parts: number;
}

function named(call: HttpCall, correlationId = ''): HttpCall {
  return correlationId === '' ? call : { ...call, headers: { 'x-correlation-id': correlationId } };
}

/** What a look at the engine after a cancel showed. */
export interface CancelLook {
  /** null: the engine cannot be looked into. */
  readonly free: boolean | null;
  /** It is at work, but what runs besides may be all there is. */
  readonly explained?: boolean;
  readonly saw: string;
}

export class EngineClient {
  readonly failures: Failures;
  readonly #http: EngineHttpClient;
  readonly #idleTimeoutMs: number;
  readonly #runs = new Map<string, Run>();
  readonly #unseen = new Set<string>();
  /** The last frame of any completion, or the moment from which one could be expected. */
  #aliveAtMs = 0;
  #lastFrameAtMs: number | null = null;
  #closed = false;

  constructor(endpoint: EngineEndpoint, errors: ErrorTable) {
    const { apiKey } = endpoint;
    this.failures = new Failures(errors, apiKey === undefined ? [] : [apiKey]);
    this.#idleTimeoutMs = endpoint.idleTimeoutMs ?? DEFAULT_IDLE_TIMEOUT_MS;
    this.#http = new EngineHttpClient({
      baseUrl: endpoint.baseUrl,
      headers: apiKey === undefined ? {} : { authorization: `Bearer ${apiKey}` },
      connections: endpoint.connections ?? DEFAULT_CONNECTIONS,
      unaryTimeoutMs: endpoint.unaryTimeoutMs ?? DEFAULT_UNARY_TIMEOUT_MS,
      translate: (failure, cause) => this.failures.http(failure, 'before_first_token', cause),
    });
  }

  /** Calls under way, without those that only ask. */
  get running(): number {
    return this.#runs.size;
  }

  /** Whether embeddings or rankings are under way. */
  get runsUnary(): boolean {
    for (const { unary } of this.#runs.values()) if (unary) return true;
    return false;
  }

  /** Holds what an engine says is at work against the completions of ours that go on. */
  lookAt(atWork: number, where: string): CancelLook {
    let sure = 0;
    let most = 0;
    for (const { seen, parts } of this.#runs.values()) {
      if (seen) sure += 1;
      most += parts;
    }
    const saw = `${where}: ${atWork} requests at work`;
    return { free: atWork <= sure, explained: atWork <= most, saw };
  }

  /** A 2xx answer's JSON, checked. Repeated while the failure is one that may pass: use it for what changes nothing. */
  json<T>(call: HttpCall, schema: z.ZodType<T>, signal: AbortSignal): Promise<T> {
    return this.#repeat(() => this.#http.json(call, schema, signal), signal);
  }

  text(call: HttpCall, signal: AbortSignal): Promise<string> {
    return this.#repeat(() => this.#http.text(call, signal), signal);
  }

  /** For what an engine, or this start of it, may not have: null when it answers that there is no such thing. */
  async ifOffered<T>(ask: () => Promise<T>): Promise<T | null> {
    try {
      return await ask();
    } catch (error) {
      if (error instanceof EngineError && (error.status === 404 || error.status === 501)) return null;
      throw error;
    }
  }

  /** For what a caller asked for by name: refused, in words of ours, where the engine has no such thing. */
  async offered<T>(what: string, ask: () => Promise<T>): Promise<T> {
    const answer = await this.ifOffered(async () => ({ value: await ask() }));
    if (answer === null) throw this.failures.unsupported(what);
    return answer.value;
  }

  /** Asked once: a health check wants to know about now. */
  async health(path: string, loadingStatuses: readonly number[], signal: AbortSignal): Promise<EngineHealth> {
    const silentForMs = this.#silentForMs();
    const progressing = silentForMs === null ? null : !isStalled({ silentForMs, idleTimeoutMs: this.#idleTimeoutMs });
    const frameAgoMs = this.#lastFrameAtMs === null ? null : Math.round(performance.now() - this.#lastFrameAtMs);
    const progress = { progressing, silentForMs, frameAgoMs };
    try {
      await this.#http.text({ method: 'GET', path }, signal);
      return { state: 'ready', live: true, ready: true, ...progress };
    } catch (error) {
      if (!(error instanceof EngineError)) throw error;
      const { status, fault, message: detail } = error;
      const answered = status !== null;
      const waits = answered ? loadingStatuses.includes(status) : fault === 'refused';
      const state = waits ? (answered ? 'loading' : 'unreachable') : 'failing';
      return { state, live: answered, ready: false, ...progress, detail };
    }
  }

  /** One completion; see EngineAdapter.stream. */
  async *stream(
    request: CompletionRequest,
    call: HttpCall,
    reader: FrameReader,
    signal: AbortSignal,
  ): AsyncGenerator<readonly EngineFrame[], void, void> {
    const run = this.#enter(request.requestId, { parts: 1, unary: false });
    using either = within(null, signal, run.abort.signal);
    const scope = new CallScope(either.signal);
    try {
      yield* this.#read(request, call, reader, scope, run);
    } catch (error) {
      throw this.#streamError(error, reader, scope, either.signal);
    } finally {
      scope.close();
      this.#leave(request.requestId, run);
    }
  }

  /**
   * A call whose answer comes whole, checked; asked once. It may take as long as a stream may be silent, is among the calls
   * under way, and is cancelled like a completion.
   */
  async unary<T>(
    { requestId, correlationId, parts }: UnaryRun,
    call: HttpCall,
    schema: z.ZodType<T>,
    signal: AbortSignal,
  ): Promise<T> {
    const run = this.#enter(requestId, { parts, unary: true });
    using either = within(null, signal, run.abort.signal);
    try {
      const answer = await this.#http.json(named(call, correlationId), schema, either.signal, this.#idleTimeoutMs);
      run.seen = true;
      this.#gaveFrame();
      return answer;
    } finally {
      this.#leave(requestId, run);
    }
  }

  #enter(requestId: string, kind: Pick<Run, 'parts' | 'unary'>): Run {
    const run: Run = { abort: new AbortController(), seen: false, ...kind };
    // One more request is no sign of life: where others wait already, the silence goes on.
    if (this.#runs.size === 0) this.#aliveAtMs = performance.now();
    this.#runs.set(requestId, run);
    return run;
  }

  #leave(requestId: string, run: Run): void {
    if (this.#runs.get(requestId) === run) this.#forget(requestId, run);
  }

  #forget(requestId: string, { seen }: Run): void {
    this.#runs.delete(requestId);
    if (seen) return;
    this.#unseen.add(requestId);
    for (const oldest of this.#unseen) {
      if (this.#unseen.size <= MAX_UNSEEN) break;
      this.#unseen.delete(oldest);
    }
  }

  /**
   * Closes the connection of a completion, if it is still there, and looks until it is seen to be gone. Never throws.
   * @param told what stands for the engine having been told, when it cannot be looked into; null: nothing does.
   */
  async cancel(
    requestId: string,
    look: (signal: AbortSignal) => Promise<CancelLook>,
    told: string | null,
    signal: AbortSignal,
  ): Promise<CancelOutcome> {
    const run = this.#runs.get(requestId);
    run?.abort.abort(new Error('canceled'));
    if (run !== undefined) this.#forget(requestId, run);
    let mustSettle = this.#unseen.delete(requestId);
    let last: CancelLook = { free: false, saw: 'the engine gave no sign in time' };
    while (!signal.aborted) {
      // Its process is being ended; nobody may take what comes after it for the one that was meant.
      if (this.#closed) return { outcome: 'acknowledged', verifiedBy: 'the engine is being stopped' };
      const before = last;
      // A look that the deadline cut off saw nothing; what the one before it saw still holds.
      last = await look(signal).catch((error: unknown) => (signal.aborted ? before : lookFailed(error)));
      if (last.free === null) {
        return { outcome: told === null ? 'unknown' : 'acknowledged', verifiedBy: told ?? last.saw };
      }
      if (last.free && !mustSettle) return { outcome: 'slot_free', verifiedBy: last.saw };
      if (last.free) mustSettle = false;
      await delay(last.free ? SETTLED_MS : LOOK_EVERY_MS, signal);
    }
    return { outcome: last.explained === true ? 'acknowledged' : 'unknown', verifiedBy: last.saw };
  }

  /** Drops every connection at once; calls under way fail as `closed` or `reset`. */
  close(): Promise<void> {
    this.#closed = true;
    return this.#http.close();
  }

  #silentForMs(): number | null {
    return this.#runs.size === 0 ? null : Math.round(performance.now() - this.#aliveAtMs);
  }

  #gaveFrame(): void {
    this.#aliveAtMs = performance.now();
    this.#lastFrameAtMs = this.#aliveAtMs;
  }

  /** HTU-1002. Every call that comes here is before the first token, because it has none. */
  async #repeat<T>(ask: () => Promise<T>, signal: AbortSignal): Promise<T> {
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await ask();
      } catch (error) {
        if (!(error instanceof EngineError) || !error.retriable) throw error;
        const waitMs = retryDelayMs(ENGINE_RETRY, attempt, Math.random(), error.retryAfterMs ?? 0);
        if (waitMs === null) throw error;
        await delay(waitMs, signal);
        signal.throwIfAborted();
      }
    }
  }

  /**
   * The idle deadline runs from one group of frames to the next, not from byte to byte: a hung engine keeps sending
   * keep-alive comments. It stands still while the consumer holds a group.
   */
  async *#read(
    request: CompletionRequest,
    call: HttpCall,
    reader: FrameReader,
    scope: CallScope,
    run: Run,
  ): AsyncGenerator<readonly EngineFrame[], void, void> {
    const seen = new StreamMeasure(request.maxTokens);
    const { body } = await this.#http.open(named(call, request.correlationId), scope, this.#idleTimeoutMs);
    try {
      const sse = new SseReader(limitsFor(request));
      scope.arm(this.#idleTimeoutMs);
      for await (const chunk of body.iterator({ destroyOnReturn: false }) as AsyncIterable<Buffer>) {
        const group = seen.take(reader.read(sse.push(chunk)), reader.claimedEnd);
        if (group.length > 0) {
          this.#gaveFrame();
          run.seen = true;
          scope.disarm();
          yield group;
          scope.arm(this.#idleTimeoutMs);
          // While the consumer held it, nothing could come.
          this.#aliveAtMs = performance.now();
        }
        if (reader.claimedEnd !== null) return;
        const failure = reader.failure ?? sse.failure;
        if (failure !== null) throw failure;
      }
      sse.end();
      if (sse.failure !== null) throw sse.failure;
      const group = seen.take(reader.eof(), reader.claimedEnd);
      if (reader.failure !== null) throw reader.failure;
      if (group.length > 0) yield group;
    } finally {
      release(body, reader.claimedEnd !== null && !reader.cutShort);
    }
  }

  #streamError(error: unknown, reader: FrameReader, scope: CallScope, caller: AbortSignal): unknown {
    if (error instanceof EngineError) return error;
    const { phase } = reader;
    if (error instanceof SseError) return this.failures.malformed(error.message, phase, error);
    return explain(error, scope, caller, (failure, cause) => this.failures.http(failure, phase, cause));
  }
}

/** Counts what comes and settles the engine's closing claims against it. */
class StreamMeasure {
  readonly #maxTokens: number;
  readonly #startedMs = performance.now();
  #firstTokenMs: number | null = null;
  #tokens = 0;

  constructor(maxTokens: number) {
    this.#maxTokens = maxTokens;
  }

  take(tokens: readonly TokenFrame[], claimed: ClaimedEnd | null): readonly EngineFrame[] {
    if (tokens.length > 0) this.#firstTokenMs ??= performance.now();
    this.#tokens += tokens.length;
    return claimed === null ? tokens : [...tokens, this.#settle(claimed)];
  }

  #settle(claimed: ClaimedEnd): EngineEnd {
    const nowMs = performance.now();
    return settleEnd(claimed, {
      tokens: this.#tokens,
      maxTokens: this.#maxTokens,
      sinceRequestMs: nowMs - this.#startedMs,
      sinceFirstTokenMs: nowMs - (this.#firstTokenMs ?? nowMs),
    });
  }
}

function limitsFor({ prompt, maxTokens }: CompletionRequest) {
  const repeated = prompt.length + maxTokens * MAX_TEXT_CHARS_PER_TOKEN;
  const maxEventChars = DEFAULT_MAX_EVENT_CHARS + repeated * MAX_ESCAPED_CHARS;
  return { maxEventChars, maxTotalBytes: maxEventChars * 3 + maxTokens * MAX_BYTES_PER_TOKEN };
}

/** A dead engine runs nothing; any other failure to look is a look that showed nothing yet. */
function lookFailed(error: unknown): CancelLook {
  if (error instanceof EngineError && error.fault === 'refused') return { free: true, saw: 'the engine is gone' };
  return { free: false, saw: error instanceof Error ? error.message : String(error) };
}
