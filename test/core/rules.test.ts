import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { checkPromptTokens, checkSubmission, type TaskSubmission } from '../../src/core/admission.js';
import { eventAfter } from '../../src/core/frame.js';
import { isUuid, seedFromTaskId } from '../../src/core/ids.js';
import { LEASE_TTL_MS, trustedUntilMs } from '../../src/core/lease.js';
import { AUTO_PLACEMENT, choosePool, type PoolCandidate, slotOrder } from '../../src/core/placement.js';
import { notReadyBecause } from '../../src/core/pool.js';
import { predictStartMs } from '../../src/core/prediction.js';
import { afterExit, backoffMs, DEFAULT_RESTART_POLICY } from '../../src/core/restart.js';
import {
  afterLoss,
  isTerminal,
  MAX_ATTEMPTS,
  nextStatus,
  TASK_STATUSES,
  type TaskCommand,
} from '../../src/core/task.js';

describe('task', () => {
  const commands: TaskCommand[] = ['claim', 'stream', 'end', 'fail', 'cancel', 'requeue', 'drop', 'expire'];

  it('never leaves a terminal state, whatever is commanded', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom(...commands), { maxLength: 30 }), (run) => {
        let status: (typeof TASK_STATUSES)[number] = 'QUEUED';
        let ended: string | null = null;
        for (const command of run) {
          status = nextStatus(status, command) ?? status;
          if (ended !== null) expect(status).toBe(ended);
          if (isTerminal(status)) ended = status;
        }
      }),
    );
    expect(TASK_STATUSES.filter(isTerminal)).toEqual(['SUCCEEDED', 'CANCELED', 'FAILED', 'DROPPED', 'EXPIRED']);
  });

  it('runs again after a loss only where that is honest, and only so often', () => {
    const task = {
      cancelRequested: false,
      attempts: 1,
      tokensLogged: 5,
      determinism: 'strict' as const,
      cause: 'gone',
    };
    expect(afterLoss(task).next).toBe('requeue');
    expect(afterLoss({ ...task, determinism: 'best_effort' })).toMatchObject({
      next: 'fail',
      error: { code: 'WORKER_RESET', retriable: true },
    });
    expect(afterLoss({ ...task, determinism: 'best_effort', tokensLogged: 0 }).next).toBe('requeue');
    expect(afterLoss({ ...task, attempts: MAX_ATTEMPTS }).next).toBe('fail');
    expect(afterLoss({ ...task, cancelRequested: true, attempts: MAX_ATTEMPTS }).next).toBe('cancel');
  });
});

describe('frame', () => {
  it('gives a reader exactly what it misses of a run of tokens', () => {
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1 }), fc.nat(50), fc.nat(80), (tokens, firstIndex, after) => {
        const event = { kind: 'tokens' as const, seq: firstIndex + tokens.length, atMs: 0, firstIndex, tokens };
        const missing = eventAfter(event, after);
        const want = tokens.filter((_, offset) => firstIndex + offset + 1 > after);
        expect(missing?.kind === 'tokens' ? missing.tokens : []).toEqual(want);
        if (missing?.kind === 'tokens') expect(missing.firstIndex).toBe(missing.seq - want.length);
      }),
    );
  });
});

describe('restarts', () => {
  it('backs off exponentially with jitter, forgets failures after a stable run, and gives up', () => {
    const policy = DEFAULT_RESTART_POLICY;
    const delays = [0, 1, 2, 3].map((failuresBefore) => afterExit(policy, { failuresBefore, readyForMs: 0 }, 0.5));
    expect(delays.map((decision) => (decision.next === 'restart' ? decision.delayMs : null))).toEqual([
      188, 375, 750, 1500,
    ]);
    expect(afterExit(policy, { failuresBefore: 7, readyForMs: policy.stableMs }, 0)).toMatchObject({
      next: 'restart',
      failures: 1,
    });
    const atFailure = (failures: number) => afterExit(policy, { failuresBefore: failures - 1, readyForMs: 0 }, 0);
    expect(atFailure(policy.maxFailures - 1).next).toBe('restart');
    expect(atFailure(policy.maxFailures)).toEqual({ next: 'quarantine', failures: policy.maxFailures });
    // A refusal costs nothing: it is tried for ever, never faster than the first time nor slower than the cap.
    for (const nth of [1, 9, 1_000]) expect(backoffMs(policy, nth, 0.999)).toBeLessThanOrEqual(policy.capMs);
    expect(backoffMs(policy, 1_000, 0)).toBe(policy.capMs / 2);
  });
});

function pool(overrides: Partial<PoolCandidate>): PoolCandidate {
  return {
    id: 'a',
    engine: 'llamacpp',
    modelRef: 'm',
    contextLength: 4096,
    deviceMask: '0',
    draining: false,
    ready: true,
    recoverable: true,
    slotsFree: 1,
    queueDepth: 0,
    ...overrides,
  };
}

describe('placement', () => {
  const request = {
    workload: 'completion' as const,
    engine: 'llamacpp' as const,
    modelRef: 'm',
    ctx: 1024,
    deadlineMs: 60_000,
    placement: AUTO_PLACEMENT,
  };

  it('is the same for every order of the candidates', () => {
    const candidate = fc.record({
      id: fc.constantFrom('a', 'b', 'c', 'd', 'e'),
      ready: fc.boolean(),
      slotsFree: fc.nat(3),
      queueDepth: fc.nat(3),
      draining: fc.boolean(),
    });
    const pools = fc.uniqueArray(candidate, { selector: (item) => item.id, minLength: 1 });
    fc.assert(
      fc.property(pools, (items) => {
        const candidates = items.map(pool);
        const chosen = choosePool(request, candidates).explanation.chosen;
        expect(choosePool(request, [...candidates].reverse()).explanation.chosen).toBe(chosen);
        if (candidates.some((item) => !item.draining)) expect(chosen).not.toBeNull();
      }),
    );
  });

  it('says for every candidate why it was refused', () => {
    const outcome = choosePool(request, [
      pool({ id: 'x', modelRef: 'other' }),
      pool({ id: 'y', contextLength: 512 }),
      pool({ id: 'z' }),
    ]);
    expect(outcome.explanation).toMatchObject({
      chosen: 'z',
      candidates: [
        { refusedBecause: expect.stringContaining('model') },
        { refusedBecause: expect.stringContaining('ctx') },
        { refusedBecause: null },
      ],
    });
  });

  it('never falls back from a pin, and names the input that no pool meets', () => {
    const pin = (pinPoolId: string) => ({
      ...request,
      placement: { ...AUTO_PLACEMENT, mode: 'pin' as const, pinPoolId },
    });
    expect(choosePool(pin('none'), [pool({})])).toMatchObject({
      ok: false,
      refusal: { field: 'placement.pin_pool_id' },
    });
    expect(choosePool(pin('a'), [pool({ draining: true }), pool({ id: 'b' })])).toMatchObject({
      ok: false,
      refusal: { code: 'POOL_UNAVAILABLE' },
    });
    expect(choosePool(pin('a'), [pool({ ready: false, recoverable: false })])).toMatchObject({
      ok: false,
      refusal: { code: 'POOL_UNREADY' },
    });
    expect(choosePool({ ...request, ctx: 9999 }, [pool({})])).toMatchObject({ ok: false, refusal: { field: 'ctx' } });
  });

  it('orders slots by free VRAM, then by load, then by id', () => {
    const replicas = [
      { replicaId: 'b', vramFreeBytes: 10, freeSlots: [0, 1], activeSlots: 0 },
      { replicaId: 'a', vramFreeBytes: 10, freeSlots: [1], activeSlots: 1 },
      { replicaId: 'c', vramFreeBytes: 20, freeSlots: [3], activeSlots: 3 },
    ];
    expect(slotOrder(replicas).map(({ replicaId, slot }) => `${replicaId}${slot}`)).toEqual(['c3', 'b0', 'a1', 'b1']);
  });
});

describe('admission', () => {
  const task: TaskSubmission = {
    taskId: '00000000-0000-0000-0000-000000000001',
    sessionId: '00000000-0000-0000-0000-000000000002',
    workload: 'completion',
    modelRef: 'm',
    engine: 'llamacpp',
    ctx: 100,
    priority: 'interactive',
    seed: null,
    determinism: 'strict',
    samplerProfileVersion: null,
    prompt: 'p',
    inputs: [],
    maxTokens: 10,
    deadlineMs: 1000,
    kvHint: null,
    followsPool: false,
    disconnectGraceMs: null,
    placement: AUTO_PLACEMENT,
  };

  it('takes ids without version bits, and derives one seed from each', () => {
    expect(checkSubmission(task)).toBeNull();
    expect(isUuid('not-a-uuid')).toBe(false);
    expect(seedFromTaskId(task.taskId)).toBe(seedFromTaskId(task.taskId.toUpperCase()));
    expect(seedFromTaskId(task.taskId)).not.toBe(seedFromTaskId(task.sessionId));
  });

  it('never truncates: what does not fit is refused with the numbers', () => {
    expect(checkPromptTokens(90, task)).toBeNull();
    expect(checkPromptTokens(91, task)).toMatchObject({
      field: 'max_tokens',
      message: expect.stringContaining('at most 9 fit'),
    });
    expect(checkPromptTokens(100, task)).toMatchObject({ field: 'prompt' });
  });
});

describe('small rules', () => {
  it('predicts a start from position, slots and service time', () => {
    const basis = { slotsTotal: 2, slotsFree: 1, serviceMs: 100 };
    expect([0, 1, 2, 3, 4].map((position) => predictStartMs(position, basis))).toEqual([0, 100, 100, 200, 200]);
  });

  it('trusts a lease for less than Postgres does', () => {
    expect(trustedUntilMs(1000)).toBeLessThan(1000 + LEASE_TTL_MS);
  });

  it('says why a pool is not ready, and nothing when it is', () => {
    const error = { code: 'X', message: 'm', fix: null };
    expect(notReadyBecause({ draining: false }, [{ id: 'a', state: 'READY', lastError: null }])).toEqual([]);
    expect(notReadyBecause({ draining: false }, [{ id: 'a', state: 'BACKING_OFF', lastError: error }])).toEqual([
      error,
    ]);
    expect(notReadyBecause({ draining: true }, [{ id: 'a', state: 'READY', lastError: null }])).toMatchObject([
      { code: 'DRAINING' },
    ]);
    expect(notReadyBecause({ draining: false }, [])).toMatchObject([{ code: 'NO_REPLICA' }]);
  });
});
