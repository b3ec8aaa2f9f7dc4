/**
 * The ways a simulated engine can misbehave. A fault is one row of FAULTS and one question that the code at the
 * affected place asks of FaultSet; `--fault` sets them at start, `POST /sim/control` at run time.
 *
 * `NAME:N` of a fault that takes tokens: it strikes a completion once N of its tokens have been sent. A fault of one
 * event strikes the next event after that, so the one of token N+1, or the closing events when there is no such token.
 */
import { EventEmitter, once } from 'node:events';

interface FaultKind {
  /** What stands behind the colon; `signed ms` may be negative. */
  readonly takes: 'nothing' | 'tokens' | 'ms' | 'signed ms';
  readonly effect: string;
}

export const FAULTS = {
  // The process.
  'never-ready': { takes: 'nothing', effect: 'the model never finishes loading' },
  'slow-load': { takes: 'ms', effect: 'loading takes so much longer (at start)' },
  'oom-at-load': { takes: 'nothing', effect: 'loading ends in the engine’s out-of-memory lines and exit code 1' },
  'cpu-fallback': {
    takes: 'nothing',
    effect: 'no GPU (at start): serves on the CPU, or exits with 1, as the engine does',
  },
  'crash-at-token': { takes: 'tokens', effect: 'the process dies by a failed assertion' },
  'cuda-error-at-token': { takes: 'tokens', effect: 'an illegal memory access ends it the way the engine ends' },
  'oom-at-token': { takes: 'tokens', effect: 'the GPU is out of memory, with the engine’s lines and end' },
  'ignore-sigterm': { takes: 'nothing', effect: 'SIGTERM has no effect' },
  'orphan-child': {
    takes: 'nothing',
    effect: 'a child (at start) ignores SIGTERM and outlives the process, 10 minutes',
  },
  'clock-skew': { takes: 'signed ms', effect: 'every time and duration the engine tells is off by so much' },
  // A completion.
  'eos-at-token': { takes: 'tokens', effect: 'no fault: the model ends by its end-of-sequence token' },
  'hang-at-token': { takes: 'tokens', effect: 'completions stop; health stays good' },
  'hang-after-headers': { takes: 'nothing', effect: 'a stream sends its head and then nothing; health stays good' },
  'ignore-cancel': { takes: 'nothing', effect: 'a client that goes is not noticed: its completion keeps its slot' },
  // The bytes of a stream.
  'error-frame-at-token': { takes: 'tokens', effect: 'the stream ends with the protocol’s error event' },
  'eof-at-token': { takes: 'tokens', effect: 'the connection is cut in mid-body' },
  'bad-utf8-at-token': { takes: 'tokens', effect: 'the next event’s text has a byte 0xFF' },
  'bad-json-at-token': { takes: 'tokens', effect: 'the next event breaks off in the middle' },
  'bad-sse-at-token': { takes: 'tokens', effect: 'a proxy’s HTML comes instead of the next event' },
  'duplicate-at-token': { takes: 'tokens', effect: 'the next event is sent twice' },
  'missing-at-token': { takes: 'tokens', effect: 'the next event is not sent' },
  'long-line-at-token': { takes: 'tokens', effect: 'a data line of 10 MB comes instead of the next event' },
  // What an answer says.
  'wrong-usage': { takes: 'nothing', effect: 'the token counts of an answer are doubled plus 7' },
  'other-model': { takes: 'nothing', effect: 'every answer names another model' },
} as const satisfies Record<string, FaultKind>;

export type FaultName = keyof typeof FAULTS;
type Named<Takes> = { [N in FaultName]: (typeof FAULTS)[N]['takes'] extends Takes ? N : never }[FaultName];
/** A fault that strikes at a token. */
export type TokenFault = Named<'tokens'>;
type MsFault = Named<'ms' | 'signed ms'>;

/** Thrown for a fault nobody knows or a number that is none. */
export class UnknownFault extends Error {}

/** Two such times, added up, still fit into a timer. */
export const MAX_MS = 1_000_000_000;
/** Some thirty years. */
const MAX_SKEW_MS = 1_000_000_000_000;
const RANGES = {
  tokens: [0, Number.MAX_SAFE_INTEGER],
  ms: [0, MAX_MS],
  'signed ms': [-MAX_SKEW_MS, MAX_SKEW_MS],
} as const;

const PARAMETER = { nothing: '', tokens: ':N', ms: ':MS', 'signed ms': ':MS' } as const;

export function describeFaults(): string {
  return Object.entries(FAULTS)
    .map(([name, { takes, effect }]) => `  ${name}${PARAMETER[takes]}  ${effect}`)
    .join('\n');
}

function parseFault(text: string): [FaultName, number] {
  const [name = '', parameter] = text.split(':', 2);
  if (!isFaultName(name)) throw new UnknownFault(`unknown fault '${text}'; known:\n${describeFaults()}`);
  const { takes } = FAULTS[name];
  if (takes === 'nothing') return [name, 0];
  const parsed = Number(parameter);
  const [least, most] = RANGES[takes];
  if (parameter === undefined || parameter === '' || !Number.isSafeInteger(parsed) || parsed < least || parsed > most) {
    const wanted = `${name}${PARAMETER[takes]}, from ${least} to ${most}`;
    throw new UnknownFault(`fault '${name}' needs a whole number: ${wanted}`);
  }
  return [name, parsed];
}

function isFaultName(name: string): name is FaultName {
  return Object.hasOwn(FAULTS, name);
}

export class FaultSet {
  #active = new Map<FaultName, number>();
  readonly #changes = new EventEmitter().setMaxListeners(0);

  /** Replaces all faults; `none` stands for no fault. Throws UnknownFault and then changes nothing. */
  set(faults: readonly string[]): void {
    this.#active = new Map(faults.filter((fault) => fault !== 'none').map(parseFault));
    this.#changes.emit('change');
  }

  list(): string[] {
    return [...this.#active].map(([name, value]) => (FAULTS[name].takes === 'nothing' ? name : `${name}:${value}`));
  }

  has(name: FaultName): boolean {
    return this.#active.has(name);
  }

  /** The milliseconds of a fault; 0 when it is not set. */
  ms(name: MsFault): number {
    return this.#active.get(name) ?? 0;
  }

  strikesAt(name: TokenFault, sentTokens: number): boolean {
    return this.#active.get(name) === sentTokens;
  }

  /** Tokens that may be sent before some fault has to be asked about again; Infinity when none will strike. */
  tokensUntilStrike(sentTokens: number): number {
    let nearest = Number.POSITIVE_INFINITY;
    for (const [name, count] of this.#active) {
      if (FAULTS[name].takes === 'tokens' && count > sentTokens) nearest = Math.min(nearest, count - sentTokens);
    }
    return nearest;
  }

  /** Resolves when the faults have changed so that `stillStruck` no longer holds; rejects when the signal aborts. */
  async waitWhile(stillStruck: () => boolean, signal: AbortSignal): Promise<void> {
    while (stillStruck()) await once(this.#changes, 'change', { signal });
  }
}
