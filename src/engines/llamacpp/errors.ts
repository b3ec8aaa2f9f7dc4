/**
 * What each way a llama-server can fail means to us. One table for what it says (HTTP status and error type, in an
 * answer or in an error frame), one for what the connection says.
 */
import type { ErrorCode } from '../../core/errors.js';
import { EngineError } from '../adapter.js';
import type { HttpFailure, TransportFault } from '../http.js';

interface Verdict {
  readonly code: ErrorCode;
  /** Whether the same request may succeed elsewhere or later, as long as no token has been passed on. */
  readonly retriable: boolean;
  /** The engine process itself is the likely cause: gone, reset, hung. */
  readonly engineLost: boolean;
}

const OURS: Verdict = { code: 'INTERNAL', retriable: false, engineLost: false };
const BAD_REQUEST: Verdict = { code: 'INVALID_PARAMS', retriable: false, engineLost: false };
const LOST: Verdict = { code: 'WORKER_RESET', retriable: true, engineLost: true };
const HUNG: Verdict = { code: 'DECODE_TIMEOUT', retriable: true, engineLost: true };

/** By `error.type`, which is finer than the status. */
const BY_ERROR_TYPE: Readonly<Record<string, Verdict>> = {
  invalid_request_error: BAD_REQUEST,
  exceed_context_size_error: BAD_REQUEST,
  // A wrong key, a missing route or a feature left off at start are mistakes of whoever launched the engine.
  authentication_error: OURS,
  permission_error: OURS,
  not_found_error: OURS,
  not_supported_error: OURS,
  // Decoding failed (KV cache full, compute error) for every active slot; the process stays and may serve the next.
  server_error: { code: 'INTERNAL', retriable: true, engineLost: false },
  unavailable_error: { code: 'POOL_UNREADY', retriable: true, engineLost: false },
};

/** By status, where the answer carries no envelope (a proxy in between, an older build). */
const BY_STATUS: Readonly<Record<number, Verdict>> = {
  400: BAD_REQUEST,
  413: BAD_REQUEST,
  429: { code: 'POOL_UNREADY', retriable: true, engineLost: false },
  500: { code: 'INTERNAL', retriable: true, engineLost: false },
  502: LOST,
  503: { code: 'POOL_UNREADY', retriable: true, engineLost: false },
  504: HUNG,
};

const BY_TRANSPORT_FAULT: Readonly<Record<TransportFault, Verdict>> = {
  refused: LOST,
  connect_timeout: LOST,
  reset: LOST,
  silent: HUNG,
  malformed: OURS,
  closed: LOST,
};

export function verdictOf(status: number, type: string | null): Verdict {
  return (type === null ? undefined : BY_ERROR_TYPE[type]) ?? BY_STATUS[status] ?? OURS;
}

interface ErrorEnvelope {
  readonly status: number;
  readonly type: string | null;
  readonly message: string;
}

const MAX_MESSAGE_CHARS = 300;

/** Reads `{"error":{"code":400,"message":"…","type":"…"}}`, given the parsed value; null when it is something else. */
export function readEnvelope(value: unknown): ErrorEnvelope | null {
  if (typeof value !== 'object' || value === null || !('error' in value)) return null;
  const { error } = value;
  if (typeof error === 'string') return { status: 500, type: null, message: error };
  if (typeof error !== 'object' || error === null) return null;
  return {
    status: 'code' in error && typeof error.code === 'number' ? error.code : 500,
    type: 'type' in error && typeof error.type === 'string' ? error.type : null,
    message: 'message' in error && typeof error.message === 'string' ? error.message : 'no message',
  };
}

export type Phase = EngineError['phase'];

export function envelopeError({ status, type, message }: ErrorEnvelope, phase: Phase): EngineError {
  const { code, engineLost } = verdictOf(status, type);
  return new EngineError(`llama-server: ${message.slice(0, MAX_MESSAGE_CHARS)}`, { code, phase, engineLost });
}

export function transportError(fault: TransportFault, detail: string, phase: Phase, cause?: unknown): EngineError {
  const { code, engineLost } = BY_TRANSPORT_FAULT[fault];
  return new EngineError(`llama-server connection ${fault}: ${detail}`, { code, phase, engineLost }, { cause });
}

export function failureError(failure: HttpFailure, phase: Phase, cause?: unknown): EngineError {
  if (failure.kind === 'transport') return transportError(failure.fault, failure.detail, phase, cause);
  const envelope = readEnvelope(parseOrNull(failure.body)) ?? {
    status: failure.status,
    type: null,
    message: `HTTP ${failure.status}`,
  };
  return envelopeError({ ...envelope, status: failure.status }, phase);
}

function parseOrNull(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}
