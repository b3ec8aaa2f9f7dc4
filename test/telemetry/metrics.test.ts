/** Each event moves the metrics that the contract says, and no other; and none of them grows for ever. */
import pino from 'pino';
import { describe, expect, it } from 'vitest';
import { FULL_POLICIES } from '../../src/core/queue.js';
import { OTHER, SeenLabels } from '../../src/telemetry/budget.js';
import { metricsContract } from '../../src/telemetry/contract.js';
import { Telemetry } from '../../src/telemetry/events.js';
import { createMetrics } from '../../src/telemetry/metrics.js';
import { parseMetrics } from '../support/metrics.js';

const TASK = {
  taskId: 't',
  sessionId: 's',
  correlationId: 'c',
  engine: 'vllm',
  modelRef: 'm',
  poolId: 'p',
  priority: 'batch',
  seed: 1n,
} as const;
const RUN = { ...TASK, replicaId: 'p-0', engineVersion: '1' };
const START = { attempt: 1, queueTimeMs: 1, queuePosition: 0, predictedStartMs: 0, kvWarmth: false };
const END = { tokensIn: 3, tokensOut: 2, decodeMs: 5 };
const REPLICA = { id: 'p-0', poolId: 'p', engine: 'vllm' } as const;
const QUOTE = { p50Ms: 10, p90Ms: 20 } as Parameters<Telemetry['quoteGraded']>[1];
const PLACEMENT = { mode: 'auto', allowFallback: true } as Parameters<Telemetry['placed']>[1];
const EXPLANATION = { chosen: 'p', candidates: [{ poolId: 'p' }] } as unknown as Parameters<Telemetry['placed']>[2];
const LOST = { code: 'WORKER_RESET', message: '', retriable: true } as const;
const full = (policyLabel: string) =>
  ({ family: 'backpressure', code: 'ADMISSION_REJECT', message: '', retriable: true, policyLabel }) as const;
const xid = {
  type: 'xid',
  uuid: 'G',
  xid: 79,
  class: 'fatal_reboot',
  meaning: '',
  action: '',
  degrades: true,
} as const;
const GPU = { device: '0', totalBytes: 9, otherBytes: 1, utilizationPercent: 5, replicas: [] };

/** Every event with all that it can mean. */
const EVENTS: Readonly<Record<string, (telemetry: Telemetry) => void>> = {
  admitted: (t) => t.admitted(TASK, 'localhost', { queuePosition: 0, predictedStartMs: 0 }),
  rejected: (t) => {
    t.rejected(TASK, 'localhost', full('reject'));
    t.rejected(TASK, 'localhost', full('rate-limit'));
    t.rejected(TASK, 'localhost', full('session-budget'));
  },
  displaced: (t) => t.displaced(TASK, 'drop-lru'),
  laneRead: (t) => t.laneRead(TASK, 3),
  nodeRead: (t) => t.nodeRead({ leases: 2, streamReaders: 1, connections: [{ kind: 'main', taken: 1, idle: 2 }] }),
  placed: (t) => t.placed(TASK, PLACEMENT, EXPLANATION),
  started: (t) => t.started(RUN, START),
  quoteGraded: (t) => t.quoteGraded(TASK, QUOTE, 12),
  quoteWithheld: (t) => t.quoteWithheld(TASK),
  firstToken: (t) => t.firstToken(RUN, 4),
  ended: (t) => {
    t.ended(RUN, START, { ...END, outcome: 'CANCELED', finishReason: 'canceled' });
    t.stoppedByReload(TASK, 't');
    t.ended(RUN, START, { ...END, outcome: 'FAILED', finishReason: 'error', error: LOST });
  },
  endedInQueue: (t) => {
    t.endedInQueue(TASK, 'CANCELED', 'canceled');
    t.stoppedByReload(TASK, 't');
    t.endedInQueue(TASK, 'EXPIRED', 'expired');
  },
  verified: (t) => t.verified({ ...TASK, rerunId: 'r' }, { verdict: 'IDENTICAL', firstDivergentIndex: null }),
  drained: (t) => t.drained(TASK, 5, { finished: 1, forceStopped: 0 }),
  reloaded: (t) => {
    t.reloaded(TASK, 5, null);
    t.reloaded(TASK, 5, 'DRAIN_TIMEOUT');
  },
  disbelieved: (t) => t.disbelieved(RUN, 'usage'),
  requeued: (t) => t.requeued({ ...TASK, id: 't' }, 'gone'),
  denied: (t) => t.denied('BAD_TOKEN', 40102, 'c'),
  workerRegistered: (t) =>
    t.workerRegistered({ identity: 'localhost', correlationId: 'c', poolId: null, replicaId: null }),
  modelStates: (t) => t.modelStates([{ id: 'm', state: 'Retired' }]),
  modelStateChanged: (t) => t.modelStateChanged({ modelId: 'm' }, 'Retired', null),
  modelVerified: (t) => t.modelVerified({ modelId: 'm' }, { result: 'PASSED', reasons: [] }, ['vllm']),
  staged: (t) => t.staged({ modelId: 'm' }, 'SUCCEEDED', ''),
  forgotten: (t) => t.forgotten('tasks', 3, 0),
  restarted: (t) => t.restarted(REPLICA),
  preloaded: (t) => t.preloaded(REPLICA, 'passed', 5),
  replicaChanged: (t) => {
    t.kvUsage(REPLICA, '1', 0.5);
    t.replicaChanged(REPLICA, { from: 'READY', to: 'BACKING_OFF', message: '' });
  },
  breakerChanged: (t) => t.breakerChanged(REPLICA, 'OPEN'),
  kvUsage: (t) => t.kvUsage(REPLICA, '1', 0.5),
  replicaGone: (t) => t.replicaGone(REPLICA),
  gpusRead: (t) => t.gpusRead([GPU]),
  hostMemoryRead: (t) => t.hostMemoryRead({ totalBytes: 2, availableBytes: 1 }),
  gpuEvent: (t) => {
    t.gpuEvent({ type: 'driver_reset', uuids: ['G'], reason: '' }, '');
    t.gpuEvent(xid, '');
  },
};
/** These stand before their event and are gone, or another, after it. */
const BEFORE: Readonly<Record<string, (telemetry: Telemetry) => void>> = {
  replicaChanged: (t) => t.kvUsage(REPLICA, '1', 0.25),
  replicaGone: (t) => {
    t.replicaChanged(REPLICA, { from: 'ABSENT', to: 'READY', message: '' });
    t.kvUsage(REPLICA, '1', 0.5);
  },
};

const { metrics: rows } = metricsContract();

function start(): { telemetry: Telemetry; read: () => Promise<Map<string, string>> } {
  const telemetry = new Telemetry(pino({ level: 'silent' }), createMetrics());
  const ours = new Set(rows.filter((row) => !row.moved_by.includes('scrape')).map(({ name }) => name));
  const read = async () => {
    const samples = new Map<string, string>();
    for (const [name, found] of parseMetrics(await telemetry.scrape())) {
      const metric = name.replace(/_(bucket|sum|count)$/, '');
      if (ours.has(metric)) samples.set(metric, (samples.get(metric) ?? '') + JSON.stringify(found));
    }
    return samples;
  };
  return { telemetry, read };
}

describe('the contract', () => {
  it.each(Object.keys(EVENTS))('%s moves what it says', async (event) => {
    const { telemetry, read } = start();
    BEFORE[event]?.(telemetry);
    const before = await read();
    EVENTS[event]?.(telemetry);
    const after = await read();
    const names = new Set([...before.keys(), ...after.keys()]);
    const moved = [...names].filter((name) => before.get(name) !== after.get(name));
    const said = rows.filter((row) => row.moved_by.includes(event)).map(({ name }) => name);
    expect(moved.sort()).toEqual(said.sort());
  });

  it('has an event for each of its metrics', () => {
    for (const { name, moved_by: movedBy } of rows) {
      expect(movedBy.length, name).toBeGreaterThan(0);
      for (const event of movedBy) expect(event === 'scrape' || event in EVENTS, `${name}: ${event}`).toBe(true);
    }
  });

  it('keeps the names, labels and buckets that dashboards were promised', () => {
    const replica = ['engine', 'engine_version', 'pool_id', 'replica_id'];
    const lane = ['engine', 'engine_version', 'pool_id', 'priority'];
    const firstToken = [50, 100, 150, 200, 300, 500, 750, 1000, 1500, 2000, 3000];
    const decode = [250, 500, 1000, 1500, 2000, 3000, 4000, 6000, 8000, 12_000];
    const promised: [string, string, string[], number[]?][] = [
      ['tasks_enqueued_total', 'counter', [...replica, 'priority']],
      ['tasks_started_total', 'counter', [...replica, 'priority']],
      ['tasks_canceled_total', 'counter', [...replica, 'reason']],
      ['tasks_rejected_total', 'counter', ['engine', 'reason']],
      ['queue_depth', 'gauge', lane],
      ['kv_cache_usage_ratio', 'gauge', replica],
      ['gpu_utilization', 'gauge', [...replica, 'device']],
      ['vram_used_bytes', 'gauge', [...replica, 'device']],
      ['latency_first_token_ms', 'histogram', lane, firstToken],
      ['latency_decode_ms', 'histogram', lane, decode],
      ['tokens_in_total', 'counter', replica],
      ['tokens_out_total', 'counter', replica],
      ['admission_backpressure_events_total', 'counter', ['engine', 'policy']],
      ['catalog_verifications_total', 'counter', ['result', 'reason', 'engine']],
      ['model_state', 'gauge', ['model_id', 'state']],
      ['placement_decisions_total', 'counter', ['outcome', 'pinned', 'fallback']],
      ['placement_candidates_considered', 'gauge', []],
    ];
    const budgets: Readonly<Record<string, number>> = {
      ...{ engine: 4, engine_version: 64, pool_id: 256, replica_id: 1024, priority: 8, reason: 16, result: 4 },
      ...{ state: 8, model_id: 1024, outcome: 4, pinned: 2, fallback: 2 },
    };
    for (const [name, type, labels, buckets] of promised) {
      const row = rows.find((one) => one.name === name);
      expect([row?.type, Object.keys(row?.labels ?? {}), row?.buckets], name).toEqual([type, labels, buckets]);
    }
    for (const { labels } of rows) {
      for (const [label, values] of Object.entries(labels)) expect(values, label).toBe(budgets[label] ?? values);
    }
  });
});

it('a refusal counts as backpressure under the name of a full queue, and of nothing else', async () => {
  const { telemetry } = start();
  for (const label of [...FULL_POLICIES, 'rate-limit', 'session-budget', 'anything']) {
    telemetry.rejected(TASK, 'localhost', full(label));
  }
  const found = parseMetrics(await telemetry.scrape()).get('admission_backpressure_events_total') ?? [];
  expect(found.map(({ labels, value }) => [labels.policy, value])).toEqual(FULL_POLICIES.map((policy) => [policy, 1]));
});

describe('label budgets', () => {
  it('send what is too many to one series, and lose no count', async () => {
    const { telemetry } = start();
    for (let index = 0; index < 5_000; index += 1) telemetry.restarted({ ...REPLICA, id: `p-${index}` });
    for (let index = 0; index < 500; index += 1) telemetry.reloaded(TASK, 1, `REASON_${index}`);
    const found = parseMetrics(await telemetry.scrape());
    const restarts = found.get('replica_restarts_total') ?? [];
    expect(restarts).toHaveLength(1024);
    expect(restarts.reduce((sum, { value }) => sum + value, 0)).toBe(5_000);
    expect(restarts.find(({ labels }) => labels.replica_id === OTHER)?.value).toBe(5_000 - 1023);
    expect(found.get('reload_failure_total')).toHaveLength(16);
    for (let index = 0; index < 500; index += 1) telemetry.firstToken({ ...RUN, engineVersion: String(index) }, 1);
    const latencies = parseMetrics(await telemetry.scrape()).get('latency_first_token_ms_count') ?? [];
    expect(latencies).toHaveLength(64);
    expect(latencies.reduce((sum, { value }) => sum + value, 0)).toBe(500);
  });

  it('take a value again that was known, and take a gauge away under the name that it got', async () => {
    const { telemetry } = start();
    for (let index = 0; index < 2_000; index += 1) telemetry.replicaChanged({ ...REPLICA, id: `p-${index}` }, UP);
    for (let index = 0; index < 2_000; index += 1) telemetry.replicaGone({ ...REPLICA, id: `p-${index}` });
    telemetry.replicaChanged({ ...REPLICA, id: 'p-7' }, UP);
    const ready = parseMetrics(await telemetry.scrape()).get('replica_ready') ?? [];
    expect(ready.map(({ labels }) => labels.replica_id)).toEqual(['p-7']);
  });

  it('have room for every model of a full catalog, also when all of them are others', async () => {
    const { telemetry } = start();
    for (const life of ['a', 'b']) {
      telemetry.modelStates(Array.from({ length: 1023 }, (_, index) => ({ id: `${life}-${index}`, state: 'Active' })));
      const told = (parseMetrics(await telemetry.scrape()).get('model_state') ?? []).map(
        ({ labels }) => labels.model_id,
      );
      expect([told.length, new Set(told).has(OTHER), told[0]]).toEqual([1023, false, `${life}-0`]);
    }
  });

  it('are kept for closed sets to the last value', () => {
    const seen = new SeenLabels();
    const values = ['true', 'false', 'maybe'].map((pinned) => seen.within({ pinned }).pinned);
    expect(values).toEqual(['true', 'false', OTHER]);
    expect(seen.within({ unknown: 'x' })).toEqual({ unknown: 'x' });
  });
});

const UP = { from: 'SELF_TESTING', to: 'READY', message: '' };
