/**
 * An engine's failure in the terms of the taxonomy. What an engine can say and what a connection can do are mapped once,
 * in one table per engine (`<engine>/errors.ts`); this file holds what the tables have in common.
 */
import type { ErrorCode } from '../core/errors.js';
import type { HttpFailure, TransportFault } from './http.js';
import { redact } from './redact.js';

export type Phase = 'before_first_token' | 'streaming';

export interface Verdict {
  readonly code: ErrorCode;
  /** Whether the same request may succeed elsewhere or later, as long as no token has been passed on. */
  readonly retriable: boolean;
  /** Least wait before another try, ms; null: no advice. */
  readonly retryAfterMs: number | null;
  /** The engine process itself is the likely cause: gone, reset, hung. */
  readonly engineLost: boolean;
}

export class EngineError extends Error implements Verdict {
  readonly code: ErrorCode;
  readonly retriable: boolean;
  readonly retryAfterMs: number | null;
  readonly engineLost: boolean;
  /** What a caller may repeat: only what came before the first token. */
  readonly phase: Phase;
  /** HTTP status the engine answered with; null when it did not answer. */
  readonly status: number | null;
  /** What the connection did; null when the engine answered. */
  readonly fault: TransportFault | null;
  constructor(
    message: string,
    facts: Verdict & { readonly phase: Phase; readonly status?: number; readonly fault?: TransportFault },
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.name = 'EngineError';
    this.code = facts.code;
    this.retriable = facts.retriable;
    this.retryAfterMs = facts.retryAfterMs;
    this.engineLost = facts.engineLost;
    this.phase = facts.phase;
    this.status = facts.status ?? null;
    this.fault = facts.fault ?? null;
  }
}

/** Verdicts that several engines share. */
export const VERDICTS = {
  /** The request can never succeed as sent. */
  badRequest: { code: 'INVALID_PARAMS', retriable: false, retryAfterMs: null, engineLost: false },
  /** A mistake of whoever launched or addressed the engine: wrong key, missing route, answer of another shape. */
  ours: { code: 'INTERNAL', retriable: false, retryAfterMs: null, engineLost: false },
  /** This run failed; the engine stays and may serve the next. */
  failed: { code: 'INTERNAL', retriable: true, retryAfterMs: null, engineLost: false },
  /** It works and takes no more for now. */
  overloaded: { code: 'POOL_UNREADY', retriable: true, retryAfterMs: 250, engineLost: false },
  loading: { code: 'POOL_UNREADY', retriable: true, retryAfterMs: 1_000, engineLost: false },
  lost: { code: 'WORKER_RESET', retriable: true, retryAfterMs: null, engineLost: true },
  hung: { code: 'DECODE_TIMEOUT', retriable: true, retryAfterMs: null, engineLost: true },
} as const satisfies Record<string, Verdict>;

const BY_TRANSPORT_FAULT: Readonly<Record<TransportFault, Verdict>> = {
  refused: VERDICTS.lost,
  connect_timeout: VERDICTS.lost,
  reset: VERDICTS.lost,
  silent: VERDICTS.hung,
  malformed: VERDICTS.ours,
  oversized: VERDICTS.badRequest,
  closed: VERDICTS.lost,
};

/** What an engine says went wrong, in an answer or in an error frame. */
export interface EngineSaid {
  readonly status: number;
  /** The engine's own word for the kind of failure; finer than the status. */
  readonly type: string | null;
  readonly message: string;
}

export interface ErrorTable {
  /** Name of the program, for messages. */
  readonly program: string;
  /** Reads the engine's error envelope out of a parsed JSON value; null when it is something else. */
  readonly read: (value: unknown) => EngineSaid | null;
  readonly byType: Readonly<Record<string, Verdict>>;
  /** Where neither type nor status tell enough: tried first, in order. */
  readonly byMessage?: readonly { readonly pattern: RegExp; readonly verdict: Verdict }[];
  readonly byStatus: Readonly<Record<number, Verdict>>;
}

const MAX_MESSAGE_CHARS = 300;
const MAX_MATCHED_CHARS = 4_096;

/** Makes the errors of one engine instance; `secrets` never show up in them. */
export class Failures {
  readonly #table: ErrorTable;
  readonly #secrets: readonly string[];

  constructor(table: ErrorTable, secrets: readonly string[] = []) {
    this.#table = table;
    this.#secrets = secrets;
  }

  verdictOf({ status, type, message }: EngineSaid): Verdict {
    const { byMessage = [], byType, byStatus } = this.#table;
    const beginning = message.slice(0, MAX_MATCHED_CHARS);
    const spoken = byMessage.find(({ pattern }) => pattern.test(beginning))?.verdict;
    const typed = type !== null && Object.hasOwn(byType, type) ? byType[type] : undefined;
    return spoken ?? typed ?? byStatus[status] ?? VERDICTS.ours;
  }

  said(said: EngineSaid, phase: Phase): EngineError {
    const message = `${this.#table.program}: ${this.#clean(said.message)}`;
    return new EngineError(message, { ...this.verdictOf(said), phase, status: said.status });
  }

  transport(fault: TransportFault, detail: string, phase: Phase, cause?: unknown): EngineError {
    const message = `${this.#table.program} connection ${fault}: ${this.#clean(detail)}`;
    return new EngineError(message, { ...BY_TRANSPORT_FAULT[fault], phase, fault }, { cause });
  }

  malformed(detail: string, phase: Phase, cause?: unknown): EngineError {
    return this.transport('malformed', detail, phase, cause);
  }

  http(failure: HttpFailure, phase: Phase, cause?: unknown): EngineError {
    if (failure.kind === 'transport') return this.transport(failure.fault, failure.detail, phase, cause);
    const { status, body } = failure;
    const envelope = this.#table.read(parseOrNull(body)) ?? { type: null, message: plainText(body) };
    return this.said({ ...envelope, status }, phase);
  }

  /** An error frame inside a stream; null when the value is none. */
  frame(value: unknown, phase: Phase): EngineError | null {
    const said = this.#table.read(value);
    return said === null ? null : this.said(said, phase);
  }

  unsupported(what: string): EngineError {
    return new EngineError(`${this.#table.program} does not offer ${what} here`, {
      ...VERDICTS.badRequest,
      phase: 'before_first_token',
    });
  }

  #clean(text: string): string {
    // Cut between the halves of a character, it could not be stored.
    return redact(text, this.#secrets).slice(0, MAX_MESSAGE_CHARS).toWellFormed();
  }
}

function plainText(body: string): string {
  const text = body.trim();
  return text === '' || text.startsWith('<') ? 'an answer without an explanation' : text;
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
