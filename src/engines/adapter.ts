/**
 * What every engine dialect can do for us, in our words. One implementation per engine; a replica holds one instance,
 * bound to its endpoint, and closes it when the process goes.
 */
import type { Engine, ErrorCode } from '../core/errors.js';

export interface CompletionRequest {
  readonly prompt: string;
  /** Upper bound of generated tokens, > 0. */
  readonly maxTokens: number;
  /** 0 … 2^63-1. A dialect with a narrower seed folds it deterministically. */
  readonly seed: bigint;
  /** True: turn on everything that makes this engine repeat itself (no prompt cache, …). */
  readonly strict: boolean;
  /** The slot the lease stands for; engines without slot pinning ignore it. */
  readonly slot: number;
}

/** One generated token, or the engine's own statement that it is done. Nothing else ends a stream normally. */
export type EngineFrame =
  | { readonly kind: 'token'; readonly text: string }
  | {
      readonly kind: 'end';
      readonly finishReason: 'stop' | 'length';
      readonly tokensIn: number;
      readonly tokensOut: number;
      /** Time the engine says it spent decoding, ms. */
      readonly decodeMs: number;
    };

export interface EngineHealth {
  /** `unreachable`: nothing listens (yet). `loading`: it answers, the model is not ready. */
  readonly state: 'unreachable' | 'loading' | 'ready' | 'failing';
  readonly detail?: string;
}

export interface EngineProps {
  readonly version: string;
  readonly modelId: string;
  /** Context of one slot, tokens. */
  readonly contextLength: number;
  readonly slotsTotal: number;
}

/** Engine-side counters, read at one moment; null where the engine does not tell. */
export interface EngineMetrics {
  readonly running: number;
  readonly waiting: number;
  readonly kvUsage: number | null;
  readonly tokensInTotal: number;
  readonly tokensOutTotal: number;
}

/** An engine's failure in the terms of the taxonomy. `phase` tells what a caller may repeat: only what came before the first token. */
export class EngineError extends Error {
  readonly code: ErrorCode;
  readonly phase: 'before_first_token' | 'streaming';
  /** True when the engine process itself is the likely cause: gone, reset, hung. */
  readonly engineLost: boolean;
  constructor(
    message: string,
    facts: { code: ErrorCode; phase: 'before_first_token' | 'streaming'; engineLost: boolean },
    options?: { cause?: unknown },
  ) {
    super(message, options);
    this.name = 'EngineError';
    this.code = facts.code;
    this.phase = facts.phase;
    this.engineLost = facts.engineLost;
  }
}

export interface EngineAdapter {
  readonly engine: Engine;
  health(signal: AbortSignal): Promise<EngineHealth>;
  props(signal: AbortSignal): Promise<EngineProps>;
  /** Tokens of the prompt as the engine itself will count them, begin-of-sequence included. */
  countTokens(text: string, signal: AbortSignal): Promise<number>;
  /**
   * Runs one completion. Yields the frames in the order they came, grouped as the socket delivered them; the last
   * group ends with an `end` frame or the iterator throws EngineError. Aborting the signal closes the connection.
   */
  stream(request: CompletionRequest, signal: AbortSignal): AsyncIterable<readonly EngineFrame[]>;
  /** Reads back from the engine whether a slot is decoding; null where it cannot tell. */
  isSlotBusy(slot: number, signal: AbortSignal): Promise<boolean | null>;
  metrics(signal: AbortSignal): Promise<EngineMetrics>;
  close(): Promise<void>;
}

/** How to start one engine process: pure data, made by the dialect, carried out by the host. */
export interface LaunchSpec {
  readonly file: string;
  readonly args: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  /** After SIGTERM, how long the engine may take before its process group is killed, ms. */
  readonly stopGraceMs: number;
}
