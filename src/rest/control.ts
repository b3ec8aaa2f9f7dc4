/** The part of the original control plane that is built: pools and capabilities. */
import { DEFAULT_DRAIN_DEADLINE_MS, type EngineCapability, type Operation, type Pools } from '../services/pools.js';
import type { Services } from '../services/services.js';
import type { components } from './generated/control.js';
import { type Call, type Route, sendJson } from './router.js';

type Schemas = components['schemas'];
type PoolHealth = Awaited<ReturnType<Pools['health']>>;

export const API_VERSION = '1.0.0';

export function controlRoutes(services: Services): Route[] {
  const { pools } = services;
  return [
    {
      method: 'POST',
      path: '/v1/pools/{id}/drain',
      handler: async (call) => {
        const { deadline_ms } = (await call.body()) as Schemas['DrainRequest'];
        sendAccepted(call, await pools.drain(call.params.id ?? '', Number(deadline_ms), call.correlationId));
      },
    },
    {
      method: 'POST',
      path: '/v1/pools/{id}/reload',
      handler: async (call) => {
        const { new_model_ref } = (await call.body()) as Schemas['ReloadRequest'];
        const { id = '' } = call.params;
        const begun = pools.reload(id, new_model_ref, DEFAULT_DRAIN_DEADLINE_MS, call.correlationId);
        sendAccepted(call, await begun);
      },
    },
    {
      method: 'GET',
      path: '/v1/operations/{id}',
      handler: async (call) => {
        sendJson(call.res, 200, operationBody(await pools.operation(call.params.id ?? '')));
      },
    },
    {
      method: 'GET',
      path: '/v1/pools/{id}/health',
      handler: async (call) => {
        const { live, ready, draining, slotsTotal, activeLeases } = await pools.health(call.params.id ?? '');
        const metrics = { slots_total: slotsTotal, active_leases: activeLeases };
        const health: Schemas['PoolHealth'] = { live, ready, draining, metrics };
        sendJson(call.res, 200, health);
      },
    },
    {
      method: 'GET',
      path: '/v1/capabilities',
      handler: async (call) => {
        const engines = pools.capabilities().map(capabilitiesBody);
        const answer: Schemas['Capabilities'] = { api_version: API_VERSION, engines };
        sendJson(call.res, 200, answer);
      },
    },
    {
      method: 'GET',
      path: '/pools/{id}/status',
      handler: async (call) => {
        sendJson(call.res, 200, statusBody(await pools.health(call.params.id ?? '')));
      },
    },
  ];
}

function capabilitiesBody(engine: EngineCapability): Schemas['EngineCapabilities'] {
  const limits: Record<string, Record<string, Schemas['RateLimit']>> = {};
  for (const { poolId, priority, perSecond, burst } of engine.rateLimits) {
    limits[poolId] = { ...limits[poolId], [priority]: { requests_per_second: perSecond, burst } };
  }
  return {
    engine: engine.engine,
    ctx_max: engine.contextMax,
    supported_workloads: engine.workloads,
    rate_limits: limits,
    features: {
      concurrency: engine.concurrency,
      pools: engine.pools.map(({ poolId, workloads }) => ({ pool_id: poolId, supported_workloads: workloads })),
    },
  };
}

function statusBody({ pool, ...health }: PoolHealth): Schemas['PoolStatus'] {
  return {
    pool_id: pool.id,
    live: health.live,
    ready: health.ready,
    active_leases: health.activeLeases,
    engine_version: health.engineVersion,
    draining: health.draining,
    device_mask: pool.deviceMask,
    slots_total: health.slotsTotal,
    slots_free: health.slotsFree,
    last_error: health.lastError?.message ?? null,
    last_heartbeat_ms: health.lastHeartbeatMs,
    vram_total_bytes: health.vramTotalBytes,
    vram_free_bytes: health.vramFreeBytes,
    compute_capability: health.computeCapability,
    tokens_per_second: health.tokensPerSecond,
    first_token_ms: health.firstTokenMs,
  };
}

function sendAccepted(call: Call, operationId: string): void {
  sendJson(call.res, 202, { operation_id: operationId }, { location: `/v1/operations/${operationId}` });
}

function operationBody(operation: Operation): Schemas['Operation'] {
  return {
    operation_id: operation.id,
    pool_id: operation.poolId,
    kind: operation.kind,
    state: operation.state,
    progress: operation.progress,
    steps: operation.steps.map((step) => ({
      name: step.name,
      state: step.state,
      started_at: isoTime(step.startedAtMs),
      ended_at: isoTime(step.endedAtMs),
      detail: step.detail,
    })),
    created_at: operation.createdAt.toISOString(),
    started_at: operation.startedAt?.toISOString() ?? null,
    ended_at: operation.endedAt?.toISOString() ?? null,
    outcome: operation.outcome,
    error: operation.error,
  };
}

function isoTime(ms: number | null): string | null {
  return ms === null ? null : new Date(ms).toISOString();
}
