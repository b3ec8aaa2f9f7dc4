/**
 * The ways a simulated engine can misbehave. A fault is one row of FAULTS and one question that the code at the
 * affected place asks of FaultSet; `--fault` sets them at start, `POST /sim/control` at run time.
 */
import { EventEmitter, once } from 'node:events';

interface FaultKind {
  readonly takesCount: boolean;
  readonly effect: string;
}

export const FAULTS = {
  'crash-at-token': { takesCount: true, effect: 'the process aborts once a completion has sent this many tokens' },
  'hang-at-token': { takesCount: true, effect: 'completions stop after this many tokens; /health stays 200' },
  'never-ready': { takesCount: false, effect: 'the model never finishes loading: 503 on every route' },
  'ignore-sigterm': { takesCount: false, effect: 'SIGTERM has no effect' },
} as const satisfies Record<string, FaultKind>;

export type FaultName = keyof typeof FAULTS;

/** Thrown for a fault nobody knows or a count that is none. */
export class UnknownFault extends Error {}

export function describeFaults(): string {
  return Object.entries(FAULTS)
    .map(([name, { takesCount, effect }]) => `  ${takesCount ? `${name}:N` : name}  ${effect}`)
    .join('\n');
}

function parseFault(text: string): [FaultName, number] {
  const [name = '', count] = text.split(':', 2);
  if (!isFaultName(name)) throw new UnknownFault(`unknown fault '${text}'; known:\n${describeFaults()}`);
  if (!FAULTS[name].takesCount) return [name, 0];
  const parsed = Number(count);
  if (count === undefined || count === '' || !Number.isSafeInteger(parsed) || parsed < 0) {
    throw new UnknownFault(`fault '${name}' needs a count: ${name}:N`);
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
    return [...this.#active].map(([name, count]) => (FAULTS[name].takesCount ? `${name}:${count}` : name));
  }

  has(name: FaultName): boolean {
    return this.#active.has(name);
  }

  /** Whether a counted fault strikes after `count` tokens of a completion. */
  strikesAt(name: FaultName, count: number): boolean {
    return this.#active.get(name) === count;
  }

  /** Tokens that may still be sent before some counted fault strikes; Infinity when none will. */
  tokensUntilStrike(sent: number): number {
    let nearest = Number.POSITIVE_INFINITY;
    for (const [name, count] of this.#active) {
      if (FAULTS[name].takesCount && count >= sent) nearest = Math.min(nearest, count - sent);
    }
    return nearest;
  }

  /** Resolves when the faults have changed so that `stillStruck` no longer holds; rejects when the signal aborts. */
  async waitWhile(stillStruck: () => boolean, signal: AbortSignal): Promise<void> {
    while (stillStruck()) await once(this.#changes, 'change', { signal });
  }
}
