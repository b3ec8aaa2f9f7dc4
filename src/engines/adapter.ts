/**
 * What every engine dialect can do for us, in our words. One implementation per engine; a replica holds one instance,
 * bound to its endpoint, and closes it when the process goes. Methods throw EngineError, or the abort reason.
 */
import type { Engine } from '../core/errors.js';

export interface CompletionRequest {
  /** Names this run to the engine and to `cancel`; unique among the runs of this control plane. */
  readonly requestId: string;
  /** Goes along as X-Correlation-Id, for the logs of what is between us and the engine; printable ASCII. */
  readonly correlationId?: string;
  readonly prompt: string;
  /** Upper bound of generated tokens, > 0. */
  readonly maxTokens: number;
  /** 0 … 2^63-1. A dialect with a narrower seed folds it deterministically. */
  readonly seed: bigint;
  /** True: turn on everything that makes this engine repeat itself (no prompt cache, …). */
  readonly strict: boolean;
  /** Whether it may take what its cache has of the prompt; left out: it may. With `strict` it never does. */
  readonly reusesCache?: boolean;
  /** The slot the lease stands for; engines without slot pinning ignore it. */
  readonly slot: number;
}

/**
 * What the engine generated next, or its own statement that it is done. Nothing else ends a stream normally.
 *
 * One `token` per generated token where the engine tells them apart. Its text is empty while the bytes of a character
 * are incomplete and the engine says so; where it merges or withholds without a word, one `token` carries what came.
 */
export type EngineFrame = TokenFrame | EngineEnd;

export interface TokenFrame {
  readonly kind: 'token';
  readonly text: string;
}

export interface EngineEnd {
  readonly kind: 'end';
  readonly finishReason: 'stop' | 'length';
  /** Tokens of the prompt; null where the engine does not tell. */
  readonly tokensIn: number | null;
  /** Tokens generated: the engine's own total, or our count where it tells none or one that cannot be. */
  readonly tokensOut: number;
  /** Time spent decoding, ms: the engine's word, as long as it fits into the time that passed here. */
  readonly decodeMs: number;
  /** What the engine claimed and we did not believe, for the log. */
  readonly disbelieved?: string;
}

export interface EngineHealth {
  /** `unreachable`: nothing listens (yet). `loading`: it answers, the model is not ready. */
  readonly state: 'unreachable' | 'loading' | 'ready' | 'failing';
  /** Something answers. */
  readonly live: boolean;
  /** It says that it takes completions. Says nothing about whether it still decodes: see `progressing`. */
  readonly ready: boolean;
  /** Whether the completions under way give tokens; null when there are none to judge by. */
  readonly progressing: boolean | null;
  /** How long none of the completions under way gave a token, ms; null when there are none. */
  readonly silentForMs: number | null;
  /** How long ago some completion gave a token or its end, ms; null: none has. */
  readonly frameAgoMs: number | null;
  readonly detail?: string;
}

/** What an engine tells about itself; null where it has no word for it. */
export interface EngineProps {
  readonly version: string;
  readonly modelId: string;
  readonly modelDigest: string | null;
  /** Context of one slot, tokens. */
  readonly contextLength: number | null;
  readonly slotsTotal: number | null;
  readonly slotsBusy: number | null;
}

/** Engine-side counters, read at one moment; null where the engine does not tell. */
export interface EngineMetrics {
  readonly running: number | null;
  readonly waiting: number | null;
  /** 0 … 1. */
  readonly kvUsage: number | null;
  readonly tokensInTotal: number | null;
  readonly tokensOutTotal: number | null;
}

export interface CancelRequest {
  readonly requestId: string;
  /** null: embeddings or a ranking, which the engine puts where it likes. */
  readonly slot: number | null;
}

/**
 * `slot_free`: the engine was seen not to run the request any more. `acknowledged`: it was told in a way it answers
 * for, but cannot be looked into. `unknown`: it was told, and either seems to go on or gives no sign.
 */
export interface CancelOutcome {
  readonly outcome: 'slot_free' | 'acknowledged' | 'unknown';
  /** What the outcome rests on, e.g. `GET /slots: slot 0 is idle`. */
  readonly verifiedBy: string;
}

export interface EmbeddingRequest {
  /** As those of a completion. */
  readonly requestId: string;
  readonly correlationId?: string;
  /** At least one. */
  readonly inputs: readonly string[];
}

export interface RerankRequest {
  readonly requestId: string;
  readonly correlationId?: string;
  readonly query: string;
  /** At least one. */
  readonly documents: readonly string[];
}

export interface Embeddings {
  /** One vector per input, in order. */
  readonly vectors: readonly (readonly number[])[];
  readonly tokensIn: number;
}

export interface Ranking {
  /** One per document, best first; `index` into the documents given. */
  readonly results: readonly { readonly index: number; readonly score: number }[];
  readonly tokensIn: number;
}

export interface EngineAdapter {
  readonly engine: Engine;
  health(signal: AbortSignal): Promise<EngineHealth>;
  props(signal: AbortSignal): Promise<EngineProps>;
  /** Tokens of the prompt as the engine itself will count them, begin-of-sequence included; null where it cannot say. */
  countTokens(text: string, signal: AbortSignal): Promise<number | null>;
  /**
   * Runs one completion. Yields the frames in the order they came, grouped as the socket delivered them; the last
   * group ends with an `end` frame or the iterator throws EngineError. Aborting the signal closes the connection.
   */
  stream(request: CompletionRequest, signal: AbortSignal): AsyncIterable<readonly EngineFrame[]>;
  /**
   * Ends a completion, or embeddings or a ranking under way, by every means the engine has, then looks until it is seen to
   * be gone or the signal aborts. Also for one whose connection was closed already. Never throws.
   */
  cancel(request: CancelRequest, signal: AbortSignal): Promise<CancelOutcome>;
  /**
   * One call, never repeated; the engine may be silent as long as before the first token of a completion. Throws EngineError
   * (INVALID_PARAMS) where the engine, or this start of it, has no embeddings, and for an answer that is too large.
   */
  embed(request: EmbeddingRequest, signal: AbortSignal): Promise<Embeddings>;
  /** As `embed`. */
  rerank(request: RerankRequest, signal: AbortSignal): Promise<Ranking>;
  metrics(signal: AbortSignal): Promise<EngineMetrics>;
  /**
   * Drops what an idle slot's cache holds. Left out: this engine cannot be told. @returns false when this start of it was
   * not given the means.
   */
  evict?(slot: number, signal: AbortSignal): Promise<boolean>;
  close(): Promise<void>;
}
