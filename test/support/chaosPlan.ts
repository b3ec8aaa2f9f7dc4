/** What happens in a chaos run and when: a seed decides all of it before anything is started. */
import type { Engine, ErrorCode } from '../../src/core/errors.js';
import { FAULTS, type FaultName } from '../../src/engines/sim/faults.js';
import { between, pick, random, shuffled } from './random.js';

export type Act =
  /** Set in a running engine, taken back after the hold. */
  | { readonly on: 'engine'; readonly fault: FaultName }
  /** The engine is killed or restarted by an operator, and its next start (`always`: every start) has the fault. */
  | { readonly on: 'start'; readonly fault: FaultName; readonly by: 'kill' | 'operator'; readonly always?: true }
  /** From outside; what was stopped goes on after the hold, or never. */
  | { readonly on: 'process'; readonly signal: 'SIGKILL' | 'SIGTERM' | 'SIGSTOP'; readonly goesOn?: true }
  | {
      readonly on: 'control plane';
      readonly how: 'killed' | 'killed twice' | 'killed unaware' | 'stopped and started' | 'paused';
    }
  | { readonly on: 'database' }
  | { readonly on: 'operator'; readonly does: 'drain' | 'restart' | 'cancel' };

export interface ChaosKind {
  readonly name: string;
  readonly act: Act;
  /** Whose tasks it may touch. */
  readonly reach: 'replica' | 'pool' | 'everything';
  /** How a task that it touched may fail. */
  readonly codes: readonly ErrorCode[];
  /** How long it is held, ms. */
  readonly holdMs: readonly [least: number, most: number];
  /** How long after it is over tasks may still fail by it: an engine that does not let go is started anew, ms. */
  readonly lingersMs: number;
}

export interface Blow {
  readonly number: number;
  readonly kind: ChaosKind;
  /** Preferred; the next that is ready takes its place. */
  readonly pool: Engine;
  readonly ordinal: number;
  readonly tokens: number;
  readonly holdMs: number;
  /** Since the blow before it was struck, ms. */
  readonly gapMs: number;
}

export const BLOWS = 200;
export const REPLICAS = 3;
/** The longest answer that is asked for; faults strike at up to so many tokens. */
export const MOST_TOKENS = 90;
const GAP_MS = [80, 420] as const;
const LOSS = ['WORKER_RESET'] as const;
const HANG = ['DECODE_TIMEOUT', 'WORKER_RESET'] as const;
const WIRE = ['INTERNAL', 'WORKER_RESET'] as const;
/** An engine that may go on is asked, waited for 5 s, and started anew. */
const RECYCLED_AFTER_MS = 8_000;
const SHORT = [600, 1_500] as const;
/** Longer than the idle timeout of the pools. */
const LONG = [3_500, 4_500] as const;

interface SimFault {
  readonly codes: readonly ErrorCode[];
  readonly holdMs?: readonly [number, number];
  readonly lingersMs?: number;
}

/**
 * How each fault of the simulator is used at run time; null: not. A new one has to be decided on.
 * An engine is not asked to end its answers early: that is no fault, and changes what every answer is. Nor to leave a token
 * out: where that is the last one before the end of its answer, or of its life, nothing on the wire tells (test/engines/faultMatrix
 * has those that are told).
 */
const AT_RUN_TIME: Readonly<Record<FaultName, SimFault | null>> = {
  'never-ready': null,
  'slow-load': null,
  'oom-at-load': null,
  'cpu-fallback': null,
  'orphan-child': null,
  'eos-at-token': null,
  'missing-at-token': null,
  'crash-at-token': { codes: LOSS },
  'cuda-error-at-token': { codes: LOSS },
  // Triton's goes on, and says so in its stream.
  'oom-at-token': { codes: WIRE },
  'ignore-sigterm': { codes: LOSS, holdMs: LONG },
  'clock-skew': { codes: [] },
  'hang-at-token': { codes: HANG, holdMs: LONG, lingersMs: RECYCLED_AFTER_MS },
  'hang-after-headers': { codes: HANG, holdMs: LONG, lingersMs: RECYCLED_AFTER_MS },
  'ignore-cancel': { codes: LOSS, holdMs: LONG, lingersMs: RECYCLED_AFTER_MS },
  'error-frame-at-token': { codes: WIRE },
  'eof-at-token': { codes: LOSS },
  'bad-utf8-at-token': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
  'bad-json-at-token': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
  'bad-sse-at-token': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
  'duplicate-at-token': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
  'long-line-at-token': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
  'wrong-usage': { codes: [] },
  'other-model': { codes: WIRE, lingersMs: RECYCLED_AFTER_MS },
};

/** Triton's protocol names neither tokens nor counts: nobody behind it can see these. */
export const UNSEEN_BY_TRITON: ReadonlySet<string> = new Set(['duplicate-at-token']);

type Fixed = readonly [count: number, kind: ChaosKind];

const everywhere = { reach: 'everything', holdMs: [0, 0], lingersMs: 2_000 } as const;
const OF_OURS: readonly Fixed[] = [
  [7, ourOwn('control plane killed', { on: 'control plane', how: 'killed' })],
  [2, ourOwn('control plane killed, and again in its start', { on: 'control plane', how: 'killed twice' })],
  // Nothing is written down of the engine that has just been started.
  [
    2,
    ourOwn('PostgreSQL killed, an engine, and the control plane as it starts anew', {
      on: 'control plane',
      how: 'killed unaware',
    }),
  ],
  [2, ourOwn('control plane stopped and started', { on: 'control plane', how: 'stopped and started' })],
  [
    2,
    { ...ourOwn('control plane paused', { on: 'control plane', how: 'paused' }), codes: HANG, holdMs: [1_000, 2_000] },
  ],
  // Longer than a lease is good for.
  [
    1,
    {
      ...ourOwn('control plane paused', { on: 'control plane', how: 'paused' }),
      codes: HANG,
      holdMs: [16_000, 16_000],
    },
  ],
  [3, { ...ourOwn('PostgreSQL killed', { on: 'database' }), lingersMs: 6_000 }],
];

function ourOwn(name: string, act: Act): ChaosKind {
  return { name, act, codes: LOSS, ...everywhere };
}

function replicaKind(name: string, act: Act, over: Partial<ChaosKind> = {}): ChaosKind {
  return { name, act, reach: 'replica', codes: LOSS, holdMs: SHORT, lingersMs: 1_500, ...over };
}

const FROM_OUTSIDE: readonly Fixed[] = [
  [12, replicaKind('engine SIGKILL', { on: 'process', signal: 'SIGKILL' })],
  [8, replicaKind('engine SIGTERM', { on: 'process', signal: 'SIGTERM' }, { lingersMs: 4_000 })],
  [6, replicaKind('engine SIGSTOP, SIGCONT', { on: 'process', signal: 'SIGSTOP', goesOn: true })],
  [3, replicaKind('engine SIGSTOP', { on: 'process', signal: 'SIGSTOP' }, { codes: HANG, lingersMs: 30_000 })],
  [7, { ...replicaKind('pool drained and resumed', { on: 'operator', does: 'drain' }), reach: 'pool' }],
  [8, replicaKind('replica restarted', { on: 'operator', does: 'restart' }, { lingersMs: 4_000 })],
  [15, replicaKind('task cancelled', { on: 'operator', does: 'cancel' })],
];

const AT_START: readonly (readonly [count: number, fault: FaultName])[] = [
  [3, 'oom-at-load'],
  [3, 'cpu-fallback'],
  [3, 'other-model'],
  [3, 'slow-load'],
  [2, 'never-ready'],
  [3, 'orphan-child'],
];

const atStart: readonly Fixed[] = AT_START.map(([count, fault]) => [
  count,
  replicaKind(`start with ${fault}`, { on: 'start', fault, by: 'kill' }),
]);

/** These end in quarantine, and take their time; the second is the last of all, so that no life of ours cuts it short. */
const FOR_GOOD: readonly ChaosKind[] = [
  replicaKind('start with other-model, every time', { on: 'start', fault: 'other-model', by: 'kill', always: true }),
  replicaKind('restarted by an operator with cpu-fallback, every time', {
    ...{ on: 'start', fault: 'cpu-fallback', by: 'operator', always: true },
  }),
];

function ofTheSimulator(): ChaosKind[] {
  return Object.entries(AT_RUN_TIME).flatMap(([name, use]) => {
    if (use === null || !isFaultName(name)) return [];
    const { codes, holdMs = SHORT, lingersMs = 1_500 } = use;
    return [replicaKind(name, { on: 'engine', fault: name }, { codes, holdMs, lingersMs })];
  });
}

function isFaultName(name: string): name is FaultName {
  return Object.hasOwn(FAULTS, name);
}

/** As it is given to the simulator. */
export function faultSpec(fault: FaultName, { tokens, number }: Pick<Blow, 'tokens' | 'number'>): string {
  switch (FAULTS[fault].takes) {
    case 'nothing':
      return fault;
    case 'tokens':
      return `${fault}:${tokens}`;
    case 'ms':
      return `${fault}:1500`;
    case 'signed ms':
      return `${fault}:${number % 2 === 0 ? '' : '-'}3600000`;
  }
}

/** The blows of a seed in their order, over these pools. */
export function planBlows(seed: number, pools: readonly Engine[]): Blow[] {
  const chance = random(seed);
  const fixed = [...OF_OURS, ...FROM_OUTSIDE, ...atStart].flatMap(([count, kind]) =>
    Array<ChaosKind>(count).fill(kind),
  );
  const rest = shuffled(chance, ofTheSimulator());
  const left = BLOWS - fixed.length - FOR_GOOD.length;
  const others = Array.from({ length: left }, (_, index) => rest[index % rest.length]);
  const deck = shuffled(chance, [...fixed, ...others.filter((kind) => kind !== undefined)]);
  const [early, last] = FOR_GOOD;
  const ordered = [...deck.slice(0, 10), early, ...deck.slice(10), last].filter((kind) => kind !== undefined);
  return ordered.map((kind, number) => ({
    ...{ number, kind },
    pool: pick(chance, poolsFor(kind, pools)),
    ordinal: between(chance, 0, REPLICAS - 1),
    tokens: between(chance, 0, MOST_TOKENS),
    holdMs: between(chance, ...kind.holdMs),
    gapMs: between(chance, ...GAP_MS),
  }));
}

/** The pools in which a blow of this kind makes a difference that can be seen. */
export function poolsFor(kind: ChaosKind, pools: readonly Engine[]): readonly Engine[] {
  const { act } = kind;
  if (act.on !== 'engine' || !UNSEEN_BY_TRITON.has(act.fault)) return pools;
  return pools.filter((pool) => pool !== 'triton');
}
