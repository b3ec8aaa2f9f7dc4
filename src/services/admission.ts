/**
 * The only way in: validated, placed, counted against the engine's own tokenizer, durable, and only then acknowledged.
 * Submissions that arrive together are written together.
 */
import { createHash } from 'node:crypto';
import { checkModelRef, checkSubmission, type TaskSubmission } from '../core/admission.js';
import { type BudgetLeft, refusedByBudget } from '../core/budget.js';
import { conflict, type Engine, type Refusal, RefusalError, unavailable } from '../core/errors.js';
import { seedFromTaskId } from '../core/ids.js';
import { isNamed } from '../core/modelRef.js';
import { choosePool, type PlacementExplanation, type PoolCandidate } from '../core/placement.js';
import { predictStartMs, type QuoteOutcome, quoteStart } from '../core/prediction.js';
import { displacedFailure, refusedByFullQueue, type StartBasis } from '../core/queue.js';
import { refusedByTurns, type SessionRules } from '../core/session.js';
import type { Priority } from '../core/task.js';
import { Batcher } from '../runtime/batcher.js';
import { leftForTask } from '../store/budgets.js';
import type { Database } from '../store/database.js';
import { type DisplacedTask, type NewTask, type SubmitResult, submitTasks } from '../store/queue.js';
import { getTask } from '../store/tasks.js';
import type { Telemetry } from '../telemetry/events.js';
import type { CatalogView } from './catalog/view.js';
import type { Dispatcher } from './dispatcher.js';
import type { Fleet } from './fleet.js';
import type { RateLimits } from './rateLimits.js';
import type { SessionPlaces } from './sessionPlaces.js';
import type { StreamHub } from './streams/hub.js';
import { boundTokens, checkTokens, type TokenBound } from './tokenCheck.js';

const MAX_BATCH = 256;
const MAX_WAITING = 4096;

export interface Receipt {
  readonly taskId: string;
  readonly poolId: string;
  readonly queuePosition: number;
  readonly predictedStartMs: number;
  readonly backoffMs: number;
  readonly quote: QuoteOutcome;
  /** What its session has left for other tasks; null: that has no budget. */
  readonly budget: BudgetLeft | null;
}

/** Who submits, and in which request. */
export interface Submitter {
  readonly correlationId: string;
  /** `localhost` or `token:<fingerprint>`. */
  readonly identity: string;
}

/** What stands in for what a caller left out. */
interface PoolNow {
  readonly engine: Engine;
  readonly modelRef: string;
  readonly contextLength: number;
}

export interface AdmissionDeps {
  readonly db: Database;
  readonly fleet: Fleet;
  readonly dispatcher: Dispatcher;
  readonly hub: StreamHub;
  readonly telemetry: Telemetry;
  readonly places: SessionPlaces;
  readonly rateLimits: RateLimits;
  readonly sessions: SessionRules;
  /** Of 1000 tokens in a pool. */
  readonly priceMicros: (poolId: string) => number;
  readonly catalog: CatalogView;
}

interface Written extends SubmitResult {
  /** Admitted, and displaced by a later task of the same batch: it has its terminal event already. */
  readonly endedAtOnce: boolean;
}

export class Admission {
  readonly #deps: AdmissionDeps;
  readonly #writers = new Map<string, Batcher<NewTask, Written>>();

  constructor(deps: AdmissionDeps) {
    this.#deps = deps;
  }

  /**
   * Admits a task, or says why not. The same task_id with the same body gives the same receipt, however often.
   * @throws RefusalError with one refusal of the taxonomy; nothing is written then.
   */
  async submit(submission: TaskSubmission, submitter: Submitter): Promise<Receipt> {
    const task = {
      ...submission,
      taskId: submission.taskId.toLowerCase(),
      sessionId: submission.sessionId.toLowerCase(),
    };
    const requestHash = hashOf(task);
    try {
      return await this.#admit(task, submitter, requestHash);
    } catch (error) {
      if (!(error instanceof RefusalError)) throw error;
      const known = await this.#receiptOfKnown(task.taskId, requestHash, error, submitter);
      if (known !== null) return known;
      const { correlationId, identity } = submitter;
      this.#deps.telemetry.rejected({ ...task, correlationId }, identity, error.refusal);
      throw error;
    }
  }

  async #admit(asked: TaskSubmission, submitter: Submitter, requestHash: string): Promise<Receipt> {
    const task = this.#following(asked);
    const broken = checkSubmission(task);
    if (broken !== null) throw new RefusalError(broken);
    const { poolId, modelRef, explanation } = await this.#place(task, submitter.correlationId);
    const limited = this.#deps.rateLimits.take(poolId, task.priority, submitter.identity);
    if (limited !== null) throw new RefusalError(limited);
    const { dispatcher, fleet, sessions } = this.#deps;
    const isCharged = sessions.limits.tokens !== null || sessions.limits.costMicros !== null;
    const prompt = await checkTokens(fleet, poolId, task, isCharged);
    const startBasis = dispatcher.startBasis(poolId, task.priority);
    const { correlationId, identity } = submitter;
    // Whatever it was asked for by: the row has the name that its pool has for it.
    const { placement: _overrides, ...rest } = { ...task, modelRef };
    const row: NewTask = {
      ...rest,
      seed: task.seed ?? seedFromTaskId(task.taskId),
      correlationId,
      requestHash,
      explanation,
      startBasis,
      promptTokens: prompt.tokens,
    };
    const result = await this.#offer(poolId, row, prompt);
    const receipt = this.#receiptOf(task, poolId, result);
    if (result.outcome === 'admitted') {
      this.#deps.telemetry.admitted({ ...rest, seed: row.seed, correlationId, poolId }, identity, receipt);
      if (!result.endedAtOnce) this.#deps.hub.announce(row.taskId, task.disconnectGraceMs !== null);
      dispatcher.queued(poolId, task.priority);
    }
    return receipt;
  }

  /** A prompt that is only bounded is counted before its session is told that it cannot pay for it. */
  async #offer(poolId: string, task: NewTask, prompt: TokenBound): Promise<Written> {
    const result = await this.#writer(poolId).submit(task);
    if (result.outcome !== 'budget' || prompt.exact || result.short?.kind === 'timeMs') return result;
    const counted = await boundTokens(this.#deps.fleet, poolId, task);
    if (counted.tokens >= prompt.tokens) return result;
    return this.#writer(poolId).submit({ ...task, promptTokens: counted.tokens });
  }

  /** The model of one that follows its pool may have changed since its door read it. */
  #following(task: TaskSubmission): TaskSubmission {
    const pool = task.followsPool ? this.poolNow(task.placement.pinPoolId ?? '') : null;
    return pool === null ? task : { ...task, modelRef: pool.modelRef };
  }

  /** What a pool is and serves at this moment, which its row tells a little later; null: no running node has it. */
  poolNow(poolId: string): PoolNow | null {
    return this.#deps.fleet.candidates().find(({ id }) => id === poolId) ?? null;
  }

  /**
   * The pool with the widest context that serves a model, by whichever of its names; null: none does.
   * @param engine null: any. @throws RefusalError for what no model may be called
   */
  widestServing(modelRef: string, engine: Engine | null): PoolNow | null {
    const broken = checkModelRef(modelRef);
    if (broken !== null) throw new RefusalError(broken);
    const pools = this.#deps.catalog
      .named(this.#deps.fleet.candidates())
      .filter((pool) => (engine === null || pool.engine === engine) && isNamed(modelRef, pool));
    const [widest] = pools.sort((a, b) => b.contextLength - a.contextLength || (a.id < b.id ? -1 : 1));
    return widest ?? null;
  }

  /** What-if: where this task would go now, and why; nothing is written. @throws RefusalError for its model */
  async explain(task: TaskSubmission): Promise<PlacementExplanation> {
    const broken = checkModelRef(task.modelRef);
    if (broken !== null) throw new RefusalError(broken);
    const pools = await this.#candidates(task);
    this.#deps.catalog.check(task.modelRef, pools);
    return choosePool(task, pools).explanation;
  }

  /** The start of a task of that priority if it were sent now. */
  quote(poolId: string, priority: Priority): QuoteOutcome {
    const { fleet, dispatcher } = this.#deps;
    // A pool that the configuration no longer names has lanes still.
    if (!fleet.candidates().some(({ id }) => id === poolId)) return { quote: null, withheld: 'POOL_UNREADY' };
    return dispatcher.quote(poolId, priority);
  }

  async #candidates(task: TaskSubmission): Promise<PoolCandidate[]> {
    const { fleet, dispatcher } = this.#deps;
    const pools = this.#deps.catalog.named(fleet.candidates());
    const lastReplica = await this.#lastReplica(task, pools);
    return pools.map((pool) => {
      const ready = fleet.ready(pool.id);
      return {
        ...pool,
        slotsFree: dispatcher.slotsFree(pool.id),
        queueDepth: dispatcher.queueDepth(pool.id),
        vramFreeBytes: Math.max(0, ...ready.map((replica) => replica.vramFreeBytes)),
        sessionHere: ready.some((replica) => replica.id === lastReplica),
        forecast: dispatcher.forecast(pool.id, task),
      };
    });
  }

  /** Asked for only where it can make a difference: most tasks have one pool to go to, or a session of their own. */
  async #lastReplica(task: TaskSubmission, pools: readonly Pick<PoolCandidate, 'engine' | 'modelRef' | 'names'>[]) {
    const fitting = pools.filter((pool) => pool.engine === task.engine && isNamed(task.modelRef, pool));
    if (fitting.length < 2 || task.kvHint === 'cold' || task.placement.mode === 'pin') return null;
    return this.#deps.places.lastReplica(task.sessionId.toLowerCase());
  }

  async #place(
    task: TaskSubmission,
    correlationId: string,
  ): Promise<{ poolId: string; modelRef: string; explanation: PlacementExplanation }> {
    const pools = await this.#candidates(task);
    this.#deps.catalog.check(task.modelRef, pools);
    const outcome = choosePool(task, pools);
    this.#deps.telemetry.placed({ ...task, correlationId }, task.placement, outcome.explanation);
    if (!outcome.ok) throw new RefusalError(outcome.refusal);
    const modelRef = pools.find(({ id }) => id === outcome.poolId)?.modelRef ?? task.modelRef;
    return { ...outcome, modelRef };
  }

  #writer(poolId: string): Batcher<NewTask, Written> {
    let writer = this.#writers.get(poolId);
    if (writer === undefined) {
      writer = new Batcher({
        maxItems: MAX_BATCH,
        maxWaiting: MAX_WAITING,
        write: (tasks) => this.#write(poolId, tasks),
        overflow: () => new RefusalError(this.#full(poolId)),
      });
      this.#writers.set(poolId, writer);
    }
    return writer;
  }

  /** One id twice in one batch would be one row with two receipts: repeats are written after their first. */
  async #write(poolId: string, tasks: readonly NewTask[]): Promise<Written[]> {
    const firstOf = new Map<string, number>();
    tasks.forEach((task, index) => {
      if (!firstOf.has(task.taskId)) firstOf.set(task.taskId, index);
    });
    const isFirst = (task: NewTask, index: number) => firstOf.get(task.taskId) === index;
    const written = await this.#submit(poolId, tasks.filter(isFirst));
    const results: SubmitResult[] = [];
    for (const [index, task] of tasks.entries()) {
      const [result] = isFirst(task, index) ? written.splice(0, 1) : await this.#submit(poolId, [task]);
      if (result === undefined) throw new Error('a submission got no result');
      results.push(result);
    }
    const ended = new Set(results.flatMap((result) => result.displaced?.taskId ?? []));
    return results.map((result, index) => ({ ...result, endedAtOnce: ended.has(tasks[index]?.taskId ?? '') }));
  }

  async #submit(poolId: string, tasks: readonly NewTask[]): Promise<SubmitResult[]> {
    const { db, dispatcher, fleet, sessions } = this.#deps;
    const policy = fleet.limits(poolId).fullPolicy;
    const displaced = displacedFailure(poolId, policy, dispatcher.retryAfterMs(poolId));
    const priceMicros = this.#deps.priceMicros(poolId);
    const results = await submitTasks(db, poolId, tasks, { sessions, priceMicros, displaced });
    for (const result of results) {
      if (result.displaced !== null) this.#tellDisplaced(poolId, result.displaced);
    }
    return results;
  }

  /** Its ending is durable: its readers look at once. */
  #tellDisplaced(poolId: string, task: DisplacedTask): void {
    const { hub, fleet, telemetry } = this.#deps;
    hub.changed(task.taskId);
    telemetry.displaced({ ...task, poolId }, fleet.limits(poolId).fullPolicy);
  }

  #receiptOf(task: TaskSubmission, poolId: string, result: Written): Receipt {
    switch (result.outcome) {
      case 'admitted':
      case 'known':
        return receipt(task.taskId, poolId, result.queuePosition, result.startBasis, result.budget);
      case 'turns':
        throw new RefusalError(refusedByTurns(task.sessionId, this.#deps.sessions.maxTurns));
      case 'budget':
        if (result.short === null) throw new Error('a budget refused a task and did not say which');
        throw new RefusalError(refusedByBudget(task.sessionId, result.short));
      case 'conflict':
        throw new RefusalError(conflict('task_id', `task ${task.taskId} exists already with another body`));
      case 'draining':
        throw new RefusalError(unavailable('POOL_UNAVAILABLE', `pool ${poolId} is draining`, 1000));
      case 'full':
        throw new RefusalError(this.#full(poolId));
    }
  }

  #full(poolId: string): Refusal {
    const { dispatcher, fleet } = this.#deps;
    return refusedByFullQueue(poolId, fleet.limits(poolId).fullPolicy, dispatcher.sendAway(poolId));
  }

  /** A repeated submission is answered with its first receipt even when a new one would be refused now. */
  async #receiptOfKnown(
    taskId: string,
    requestHash: string,
    refused: RefusalError,
    { correlationId, identity }: Submitter,
  ): Promise<Receipt | null> {
    const { family, code } = refused.refusal;
    if ((family === 'invalid' && code === 'INVALID_PARAMS') || family === 'conflict') return null;
    const row = await getTask(this.#deps.db, taskId).catch(() => null);
    if (row === null || row.requestHash !== requestHash) return null;
    const budget = row.hasBudget ? await leftForTask(this.#deps.db, taskId).catch(() => null) : null;
    const known = receipt(row.id, row.poolId, row.queuePosition, row.startBasis, budget);
    // Written by this very request, and the answer of the database was lost.
    if (family === 'unavailable' && row.correlationId === correlationId) {
      this.#deps.telemetry.admitted({ ...row, taskId: row.id }, identity, known);
      this.#deps.dispatcher.wake();
    }
    return known;
  }
}

function receipt(
  taskId: string,
  poolId: string,
  queuePosition: number,
  basis: StartBasis,
  budget: BudgetLeft | null,
): Receipt {
  const predictedStartMs = predictStartMs(queuePosition, basis);
  const quote = quoteStart(queuePosition, basis);
  return { taskId, poolId, queuePosition, predictedStartMs, backoffMs: 0, quote, budget };
}

/** Of everything that makes two submissions the same task. The model of one that follows its pool was not its caller's word. */
function hashOf(task: TaskSubmission): string {
  const { placement, modelRef, ...others } = task;
  const rest = task.followsPool ? others : { ...others, modelRef };
  const canonical = JSON.stringify(
    [Object.entries(rest).sort(byKey), Object.entries(placement).sort(byKey)],
    (_key, value) => (typeof value === 'bigint' ? String(value) : value),
  );
  return createHash('sha256').update(canonical).digest('hex');
}

function byKey(a: readonly [string, unknown], b: readonly [string, unknown]): number {
  return a[0] < b[0] ? -1 : 1;
}
