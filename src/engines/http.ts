/**
 * The HTTP client that every engine dialect uses: one pool of connections to one endpoint. It decides nothing about
 * an engine's meaning; whatever goes wrong becomes an HttpFailure, and the dialect's table says what that stands for.
 * Requests carry only the headers given here: of what a client of ours sent, nothing but its correlation id reaches an
 * engine. (A header that names a conversation would let llama-server go on after we hung up.)
 */
import { type Dispatcher, Pool } from 'undici';
import type { z } from 'zod';

const CONNECT_TIMEOUT_MS = 5_000;
const MAX_ANSWER_BYTES = 8 * 1024 * 1024;
const MAX_ERROR_ANSWER_BYTES = 64 * 1024;
/** How long and how much a finished stream may still trickle before its connection is dropped instead of reused. */
const DRAIN_MS = 1_000;

export type TransportFault = 'refused' | 'connect_timeout' | 'reset' | 'silent' | 'malformed' | 'oversized' | 'closed';

/** What went wrong, before any engine's meaning is put on it. */
export type HttpFailure =
  | { readonly kind: 'transport'; readonly fault: TransportFault; readonly detail: string }
  | { readonly kind: 'status'; readonly status: number; readonly body: string };

/** Turns a failure into what the dialect throws. A caller's own abort never comes here: it throws the abort reason. */
export type FailureTranslator = (failure: HttpFailure, cause?: unknown) => Error;

export interface HttpCall {
  readonly method: 'GET' | 'POST';
  readonly path: string;
  /** Sent as JSON. */
  readonly body?: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Ends a call for whichever comes first: the caller's abort or a deadline that the owner arms and disarms. */
export class CallScope {
  readonly #controller = new AbortController();
  readonly #caller: AbortSignal;
  #timer: NodeJS.Timeout | null = null;
  #timedOut = false;

  constructor(caller: AbortSignal) {
    this.#caller = caller;
    if (caller.aborted) this.#onCallerAbort();
    else caller.addEventListener('abort', this.#onCallerAbort, { once: true });
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  get timedOut(): boolean {
    return this.#timedOut;
  }

  /** Starts a deadline unless one already runs. */
  arm(timeoutMs: number): void {
    this.#timer ??= setTimeout(this.#onDeadline, timeoutMs);
  }

  disarm(): void {
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  close(): void {
    this.disarm();
    this.#caller.removeEventListener('abort', this.#onCallerAbort);
  }

  readonly #onCallerAbort = (): void => {
    this.#controller.abort(this.#caller.reason);
  };

  readonly #onDeadline = (): void => {
    this.#timedOut = true;
    this.#controller.abort(new Error('deadline passed'));
  };
}

const FAULT_BY_CODE: Readonly<Record<string, TransportFault>> = {
  ECONNREFUSED: 'refused',
  ENOENT: 'refused',
  UND_ERR_CONNECT_TIMEOUT: 'connect_timeout',
  EHOSTUNREACH: 'connect_timeout',
  ENETUNREACH: 'connect_timeout',
  ECONNRESET: 'reset',
  EPIPE: 'reset',
  UND_ERR_SOCKET: 'reset',
  UND_ERR_HEADERS_TIMEOUT: 'silent',
  UND_ERR_BODY_TIMEOUT: 'silent',
  UND_ERR_HEADERS_OVERFLOW: 'malformed',
  UND_ERR_RES_CONTENT_LENGTH_MISMATCH: 'reset',
  UND_ERR_DESTROYED: 'closed',
  UND_ERR_CLOSED: 'closed',
};

/** What a connection did wrong; null for an error that is no connection's, which is then a mistake of ours. */
export function transportFailure(error: unknown, timedOut: boolean): HttpFailure | null {
  if (timedOut) return { kind: 'transport', fault: 'silent', detail: 'no answer within the deadline' };
  const code = error instanceof Error && 'code' in error ? String(error.code) : '';
  const known = Object.hasOwn(FAULT_BY_CODE, code) ? FAULT_BY_CODE[code] : undefined;
  const fault = known ?? (code.startsWith('HPE_') ? 'malformed' : /^(?:UND_ERR_|E[A-Z]+$)/.test(code) ? 'reset' : null);
  return fault === null ? null : { kind: 'transport', fault, detail: code };
}

interface EngineHttpOptions {
  readonly baseUrl: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** Most connections at once: one per slot and a few for probes. They open on demand. */
  readonly connections: number;
  /** Overall deadline of one unary call, from asking for a connection to the last byte. */
  readonly unaryTimeoutMs: number;
  readonly translate: FailureTranslator;
}

type Answer = Dispatcher.ResponseData;

export class EngineHttpClient {
  readonly #pool: Pool;
  readonly #headers: Readonly<Record<string, string>>;
  readonly #unaryTimeoutMs: number;
  readonly #translate: FailureTranslator;

  constructor(options: EngineHttpOptions) {
    this.#pool = new Pool(options.baseUrl, {
      connections: options.connections,
      pipelining: 1,
      connect: { timeout: CONNECT_TIMEOUT_MS },
    });
    this.#headers = options.headers ?? {};
    this.#unaryTimeoutMs = options.unaryTimeoutMs;
    this.#translate = options.translate;
  }

  /**
   * A 2xx answer's JSON, checked. Any other status or shape throws what the translator makes of it.
   * @param timeoutMs of the whole call.
   */
  async json<T>(
    call: HttpCall,
    schema: z.ZodType<T>,
    signal: AbortSignal,
    timeoutMs = this.#unaryTimeoutMs,
  ): Promise<T> {
    const text = await this.text(call, signal, timeoutMs);
    const malformed = (detail: string, cause?: unknown): Error =>
      this.#translate({ kind: 'transport', fault: 'malformed', detail: `${call.path}: ${detail}` }, cause);
    let value: unknown;
    try {
      value = JSON.parse(text);
    } catch (cause) {
      throw malformed('not JSON', cause);
    }
    const parsed = schema.safeParse(value);
    if (!parsed.success) throw malformed('unexpected shape', parsed.error);
    return parsed.data;
  }

  async text(call: HttpCall, signal: AbortSignal, timeoutMs = this.#unaryTimeoutMs): Promise<string> {
    return this.#inScope(signal, this.#translate, async (scope) => {
      scope.arm(timeoutMs);
      const answer = await this.#request(call, scope.signal, timeoutMs);
      return readAccepted(answer);
    });
  }

  /**
   * Sends a call whose answer is a stream and returns it once a 2xx head has come. `idleTimeoutMs` bounds the wait for
   * the head and every silence after it. The scope stays the caller's: it must be closed, and the body read or given
   * to `release`.
   */
  async open(call: HttpCall, scope: CallScope, idleTimeoutMs: number): Promise<Answer> {
    // Waiting for a connection has no timeout of its own in the pool; the scope bounds it together with the head.
    scope.arm(CONNECT_TIMEOUT_MS + idleTimeoutMs);
    const answer = await this.#request(call, scope.signal, idleTimeoutMs);
    if (!isAccepted(answer.statusCode)) await readAccepted(answer);
    scope.disarm();
    return answer;
  }

  /** Drops every connection at once; calls under way fail as `closed` or `reset`. */
  async close(): Promise<void> {
    await this.#pool.destroy();
  }

  async #request(call: HttpCall, signal: AbortSignal, timeoutMs: number): Promise<Answer> {
    const hasBody = call.body !== undefined;
    return this.#pool.request({
      method: call.method,
      path: call.path,
      headers: { ...this.#headers, ...(hasBody && { 'content-type': 'application/json' }), ...call.headers },
      ...(hasBody && { body: JSON.stringify(call.body) }),
      headersTimeout: timeoutMs,
      bodyTimeout: timeoutMs,
      signal,
    });
  }

  async #inScope<T>(signal: AbortSignal, fail: FailureTranslator, run: (scope: CallScope) => Promise<T>): Promise<T> {
    const scope = new CallScope(signal);
    try {
      return await run(scope);
    } catch (error) {
      throw explain(error, scope, signal, fail);
    } finally {
      scope.close();
    }
  }
}

/** The one error a failed call ends with: the caller's abort reason, or the dialect's translation. */
export function explain(error: unknown, scope: CallScope, caller: AbortSignal, fail: FailureTranslator): unknown {
  if (caller.aborted) return caller.reason;
  if (error instanceof StatusError) return fail({ kind: 'status', status: error.status, body: error.body });
  if (error instanceof AnswerTooLarge) {
    return fail({ kind: 'transport', fault: 'oversized', detail: error.message }, error);
  }
  const failure = transportFailure(error, scope.timedOut);
  return failure === null ? error : fail(failure, error);
}

class StatusError extends Error {
  readonly status: number;
  readonly body: string;
  constructor(status: number, body: string) {
    super(`HTTP ${status}`);
    this.status = status;
    this.body = body;
  }
}

class AnswerTooLarge extends Error {}

// A redirect is not accepted: an engine of ours has no business sending us elsewhere.
function isAccepted(status: number): boolean {
  return status >= 200 && status < 300;
}

async function readAccepted(answer: Answer): Promise<string> {
  if (isAccepted(answer.statusCode)) return readCapped(answer, MAX_ANSWER_BYTES);
  throw new StatusError(answer.statusCode, await readCapped(answer, MAX_ERROR_ANSWER_BYTES));
}

async function readCapped(answer: Answer, maxBytes: number): Promise<string> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of answer.body as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > maxBytes) throw new AnswerTooLarge(`an answer is larger than ${maxBytes} bytes; ask for less at once`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks, bytes).toString('utf8');
}

/** Gives a body back: read to its end for a moment so that the connection can serve again, or cut off. */
export function release(body: Answer['body'], finished: boolean): void {
  body.on('error', () => {}); // nobody waits for this body any more, so its failure has no one to tell
  if (!finished) {
    body.destroy();
    return;
  }
  const cutOff = setTimeout(() => body.destroy(), DRAIN_MS);
  body.once('close', () => clearTimeout(cutOff));
  body.resume();
}
