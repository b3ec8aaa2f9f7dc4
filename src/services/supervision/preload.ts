/** The way of a replica to Ready: steps in order, each timed and told while it runs, the gates among them. */
import type { Reason } from '../../core/pool.js';
import type { Workload } from '../../core/workload.js';
import type { EngineProps } from '../../engines/adapter.js';
import { EngineError } from '../../engines/failure.js';
import type { Clock } from '../../runtime/clock.js';
import { within } from '../../runtime/wait.js';
import { cancelGate, cpuGate, metricsGate, propsGate, readyGate, workloadGate } from './gates.js';
import type { Instance } from './instance.js';

export const SELF_TEST_DEADLINE_MS = 30_000;
/** What a step says while it runs is written down no more often than this. */
const SAY_EVERY_MS = 1_000;
/** More than any way to Ready has; a longer one is cut, not kept. */
const MAX_STEPS = 40;
const MAX_DETAIL_CHARS = 500;

export interface PreloadStep {
  readonly name: string;
  readonly state: 'RUNNING' | 'SUCCEEDED' | 'FAILED';
  readonly startedAtMs: number;
  readonly endedAtMs: number | null;
  readonly detail: string | null;
}

type Say = (detail: string) => void;

/** One way to Ready, from its first step on. */
export class PreloadSteps {
  readonly #clock: Clock;
  readonly #onChange: () => void;
  readonly #steps: PreloadStep[] = [];
  #saidMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Clock, onChange: () => void) {
    this.#clock = clock;
    this.#onChange = onChange;
  }

  get all(): readonly PreloadStep[] {
    return this.#steps;
  }

  /** A step fails by what it throws, and by a Reason that it gives. */
  readonly step = async <T>(name: string, work: (say: Say) => Promise<T>): Promise<T> => {
    const at = this.#steps.length;
    this.#set(at, { name, state: 'RUNNING', startedAtMs: this.#clock.nowMs(), endedAtMs: null, detail: null });
    this.#onChange();
    try {
      const result = await work((detail) => this.#say(at, detail));
      const failure = isReason(result) ? result.message : null;
      this.#end(at, failure === null ? 'SUCCEEDED' : 'FAILED', failure);
      return result;
    } catch (error) {
      this.#end(at, 'FAILED', error instanceof Error ? error.message : String(error));
      throw error;
    } finally {
      this.#onChange();
    }
  };

  #say(at: number, detail: string): void {
    this.#set(at, { detail: detail.slice(0, MAX_DETAIL_CHARS) });
    const nowMs = this.#clock.monotonicMs();
    if (nowMs - this.#saidMs < SAY_EVERY_MS) return;
    this.#saidMs = nowMs;
    this.#onChange();
  }

  #end(at: number, state: 'SUCCEEDED' | 'FAILED', failure: string | null): void {
    const detail = failure?.slice(0, MAX_DETAIL_CHARS) ?? this.#steps[at]?.detail ?? null;
    this.#set(at, { state, detail, endedAtMs: this.#clock.nowMs() });
  }

  #set(at: number, change: Partial<PreloadStep>): void {
    const old = this.#steps[at] ?? { name: '', state: 'RUNNING', startedAtMs: 0, endedAtMs: null, detail: null };
    if (at < MAX_STEPS) this.#steps[at] = { ...old, ...change };
  }
}

function isReason(result: unknown): result is Reason {
  return typeof result === 'object' && result !== null && 'code' in result && 'message' in result && 'fix' in result;
}

export interface Gates {
  readonly instance: Instance;
  readonly slots: number;
  /** The name by which the engine must call itself; null where somebody else chose it. */
  readonly modelId: string | null;
  readonly steps: PreloadSteps;
  /** The engine has begun to answer. */
  readonly onAnswer: () => void;
  /** It reports ready: what comes next is the test whether that is true. */
  readonly onHealthy: () => void;
  readonly onProps: (props: EngineProps) => void;
  /** Asked after that. @returns what keeps an engine of its version from serving beside the others of its pool. */
  readonly compareVersion: () => Reason | null;
  /** What it may take, each of which is tried. */
  readonly workloads: readonly Workload[];
  readonly onWorkloads: (taken: readonly [Workload, ...Workload[]]) => void;
}

/** Every gate between a started process and Ready, in order. Null when all are passed, or when the stop came first. */
export async function passGates(gates: Gates, stop: AbortSignal): Promise<Reason | null> {
  const { instance, steps, onAnswer } = gates;
  const { adapter, log, readyDeadlineMs: deadlineMs } = instance;
  const late = await steps.step('wait_until_ready', () =>
    readyGate(adapter, { deadlineMs, logFile: log.file, onAnswer }, stop),
  );
  if (late !== null || stop.aborted) return late;
  const onCpu = await steps.step('check_device', () => cpuGate(log));
  if (onCpu !== null || stop.aborted) return onCpu;
  gates.onHealthy();
  using deadline = within(SELF_TEST_DEADLINE_MS, stop);
  try {
    return await selfTest(gates, deadline.signal);
  } catch (error) {
    if (stop.aborted || !deadline.signal.aborted) throw error;
    return {
      code: 'SELF_TEST_TIMEOUT',
      message: `the engine reports ready and did not pass ${steps.all.at(-1)?.name ?? 'its self-test'} within ${SELF_TEST_DEADLINE_MS} ms`,
      fix: `Look at ${log.file}.`,
    };
  }
}

async function selfTest(gates: Gates, signal: AbortSignal): Promise<Reason | null> {
  const { instance, slots, modelId, steps, onProps } = gates;
  const { adapter, own } = instance;
  let contextLength: number | null = null;
  const wrong = await steps.step('identify', async (say) => {
    const props = await adapter.props(signal);
    contextLength = props.contextLength;
    onProps(props);
    say(`version ${props.version}, model ${props.modelId}`);
    return propsGate(props, { slots, modelId }) ?? gates.compareVersion();
  });
  if (wrong !== null) return wrong;
  const taken = await tryWorkloads(gates, signal);
  gates.onWorkloads(taken);
  // One that was taken over passed it when it was started, and may still be letting go of what it ran then.
  if (own?.adopted !== true && taken.includes('completion')) {
    const goesOn = await steps.step('cancel', (say) =>
      cancelGate(adapter, { say, ours: own !== null, contextLength }, signal),
    );
    if (goesOn !== null) return goesOn;
  }
  return steps.step('metrics', (say) => metricsGate(adapter, { say, ours: own !== null }, signal));
}

const STEP_OF: Readonly<Record<Workload, string>> = { completion: 'decode', embedding: 'embed', rerank: 'rerank' };

/** @returns what it takes of what it may take. Throws what the engine said first when that is nothing. */
async function tryWorkloads(
  { instance, steps, workloads }: Gates,
  signal: AbortSignal,
): Promise<readonly [Workload, ...Workload[]]> {
  const taken: Workload[] = [];
  const refusals: EngineError[] = [];
  for (const workload of workloads) {
    await steps.step(STEP_OF[workload], async (say) => {
      try {
        await workloadGate(instance.adapter, workload, signal);
        taken.push(workload);
      } catch (error) {
        if (!(error instanceof EngineError) || error.engineLost || error.retriable) throw error;
        refusals.push(error);
        if (refusals.length === workloads.length) throw refusals[0];
        say(`not offered: ${error.message}`);
      }
    });
  }
  const [first, ...others] = taken;
  if (first === undefined) throw new Error('an engine that may take nothing was started');
  return [first, ...others];
}
