/**
 * The shape of the configuration file. Keys stay as they are written (snake_case); every object is strict, so a typo is
 * refused and never ignored. Messages read "what is wrong — how to fix" and never repeat a value, which may be a secret.
 */
import { z } from 'zod';
import { MAX_LIMIT, MICROS } from '../core/budget.js';
import { ENGINES } from '../core/errors.js';
import { CatalogSchema, RetentionSchema } from './catalogSchema.js';
import { ADDR_FIX, isPostgresUrl, parseListenAddress } from './environment.js';
import { allowedHost, endpointUrl, ProvisioningSchema, positiveInt, text } from './provisioningSchema.js';

/** A week: more is a mistake, and timers cannot count much further. */
const durationMs = z
  .int()
  .min(1)
  .max(7 * 24 * 3600 * 1000);

/** Of 1000 tokens, prompt and answer alike, in whatever unit `budgets.cost` has. */
const price = z.number().min(0.000001).max(1_000);

const hostName = z
  .string()
  .regex(
    /^(?=.{1,253}$)[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?)*$/,
    {
      error: 'is not a host name — write e.g. gpu-box.local, without https:// and without a port',
    },
  );

const webOrigin = z
  .string()
  .refine((value) => /^https?:\/\//.test(value) && URL.canParse(value) && new URL(value).origin === value, {
    error: 'is not an origin — write e.g. https://dash.example.org or http://localhost:3000, without a path',
  });

const QueueSchema = z.strictObject({
  /** Waiting tasks over both priorities; a priority may have a lower bound of its own. */
  capacity: z.int().min(1).max(100_000).default(256),
  full_policy: z.enum(['reject', 'drop-lru', 'shed-low-priority']).default('reject'),
  /** How long a task is taken to hold a slot while fewer than five have been measured. */
  assumed_service_ms: durationMs.default(1_000),
});

const PriorityAdmissionSchema = z.strictObject({
  name: z.enum(['interactive', 'batch']),
  /** Of this priority alone, within what `queue.capacity` allows both together. */
  queue_capacity: z.int().min(1).max(100_000).optional(),
  /** Requests per second of one caller; a second's worth may come at once. */
  rate_limit_rps: z.number().positive().optional(),
  weight: z.number().positive().optional(),
});

const TimeoutsSchema = z.strictObject({
  wall_ms: durationMs.default(600_000),
  idle_ms: durationMs.default(30_000),
});

const HealthSchema = z.strictObject({
  /** An engine that has nothing to do decodes one token this often; 0: never, for engines that may sleep. */
  canary_every_ms: z.int().min(0).max(86_400_000).default(30_000),
});

const PoolFields = z.strictObject({
  id: z.string().regex(/^[a-z0-9][a-z0-9_-]{0,62}$/, {
    error: 'is not a pool id — use 1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit',
  }),
  engine: z.enum(ENGINES),
  model: text,
  quant: text.optional(),
  /** Tokens of one slot. */
  ctx: positiveInt.default(4096),
  /** GPU indices of the pool's device mask. */
  devices: z.array(z.int().min(0)).max(64).default([]),
  /** Ratios, one per device. */
  tensor_split: z.array(z.number().positive()).optional(),
  preload: z.boolean().default(true),
  require_same_engine_version: z.boolean().default(true),
  sampler_profile_version: text.optional(),
  replicas: z.int().min(1).max(64).default(1),
  /** Concurrent tasks of one replica. */
  slots: z.int().min(1).max(1024).default(1),
  endpoint: endpointUrl.optional(),
  /** Where an external engine serves its metrics, if not at `endpoint` (Triton: port 8002). */
  metrics_endpoint: endpointUrl.optional(),
  /** What cost budgets are charged here; that of `budgets` when left out. */
  price_per_1k_tokens: price.optional(),
  queue: QueueSchema.prefault({}),
  admission: z.strictObject({ priorities: z.array(PriorityAdmissionSchema).optional() }).prefault({}),
  timeouts: TimeoutsSchema.prefault({}),
  health: HealthSchema.prefault({}),
  provisioning: ProvisioningSchema,
});

type Found = (path: (string | number)[], message: string) => void;

function repeats<T>(values: readonly T[]): number[] {
  return values.flatMap((value, index) => (values.indexOf(value) < index ? [index] : []));
}

function checkProvisioning({ endpoint, metrics_endpoint, provisioning }: PoolConfig, found: Found): void {
  const { mode } = provisioning;
  if (mode === 'external' && endpoint === undefined) {
    found(
      ['endpoint'],
      'is missing: mode external attaches to a running engine — add e.g. endpoint: http://127.0.0.1:8081',
    );
  }
  for (const [key, value] of Object.entries({ endpoint, metrics_endpoint })) {
    if (mode === 'external' || value === undefined) continue;
    found([key], `belongs to provisioning.mode external, not ${mode} — remove it, or change the mode`);
  }
  if (mode !== 'external' && mode !== 'simulated' && provisioning[mode] === undefined) {
    found(
      ['provisioning', mode],
      `is missing: provisioning.mode is ${mode} — add the ${mode} section, or change the mode`,
    );
  }
  if (mode !== 'simulated' && provisioning.simulated !== undefined) {
    // A half-made choice: never let it decide silently between a real engine and a simulated one.
    found(['provisioning', 'simulated'], `has no effect in mode ${mode} — remove it, or choose mode: simulated`);
  }
  if (mode === 'binary' && provisioning.binary?.url.startsWith('http') && provisioning.binary.checksum === undefined) {
    found(
      ['provisioning', 'binary', 'checksum'],
      'is missing: a download needs one — add checksum: sha256:<64 hex digits>',
    );
  }
}

function checkPool(pool: PoolConfig, found: Found): void {
  checkProvisioning(pool, found);
  for (const index of repeats(pool.devices)) found(['devices', index], 'names a device twice — list each device once');
  if (pool.tensor_split !== undefined && pool.tensor_split.length !== pool.devices.length) {
    found(
      ['tensor_split'],
      `has ${pool.tensor_split.length} ratios for ${pool.devices.length} devices — give one ratio per device`,
    );
  }
  for (const index of repeats(pool.provisioning.ports))
    found(['provisioning', 'ports', index], 'repeats a port — list each port once');
  const names = pool.admission.priorities?.map((priority) => priority.name) ?? [];
  for (const index of repeats(names))
    found(['admission', 'priorities', index, 'name'], 'repeats a priority — keep one entry per priority');
  for (const [index, { queue_capacity: own }] of (pool.admission.priorities ?? []).entries()) {
    if (own === undefined || own <= pool.queue.capacity) continue;
    found(
      ['admission', 'priorities', index, 'queue_capacity'],
      `is above queue.capacity (${pool.queue.capacity}), which bounds both priorities together — lower it, or raise that`,
    );
  }
}

const PoolSchema = PoolFields.superRefine((pool, context) => {
  checkPool(pool, (path, message) => context.addIssue({ code: 'custom', path, message }));
});

const GpuSchema = z
  .strictObject({
    mode: z.enum(['nvidia', 'simulated']).default('nvidia'),
    devices: z
      .array(z.strictObject({ name: text, memory_bytes: positiveInt, uuid: text.optional() }))
      .min(1)
      .max(64)
      .optional(),
  })
  .superRefine((gpu, context) => {
    if (gpu.mode === 'simulated' && gpu.devices === undefined) {
      context.addIssue({
        code: 'custom',
        path: ['devices'],
        message:
          'is missing: simulated GPUs must be described — add e.g. devices: [{ name: Simulated 24 GB, memory_bytes: 25769803776 }]',
      });
    }
    if (gpu.mode === 'nvidia' && gpu.devices !== undefined) {
      context.addIssue({
        code: 'custom',
        path: ['devices'],
        message: 'describes simulated GPUs, but gpu.mode is nvidia — remove it, or choose mode: simulated',
      });
    }
  });

const ConfigFields = z.strictObject({
  pools: z.array(PoolSchema).min(1).max(256),
  catalog: CatalogSchema.prefault({}),
  retention: RetentionSchema.prefault({}),
  gpu: GpuSchema.prefault({}),
  server: z
    .strictObject({
      addr: z
        .string()
        .refine((value) => parseListenAddress(value) !== null, {
          error: `is not an address to listen on — ${ADDR_FIX}`,
        })
        .optional(),
      /** What callers may call us beside localhost, e.g. the name that a proxy or the local network has for us. */
      allowed_hosts: z.array(hostName).max(100).default([]),
      /** Whose pages may call us through a browser beside our own (CORS). */
      allowed_origins: z.array(webOrigin).max(100).default([]),
    })
    .prefault({}),
  database: z
    .strictObject({
      /** May hold a password: keep it out of logs. */
      url: z
        .string()
        .refine(isPostgresUrl, { error: 'is not a PostgreSQL URL — write postgresql://user@host:5432/database' })
        .optional(),
    })
    .prefault({}),
  sessions: z
    .strictObject({ ttl_ms: z.int().min(1).max(600_000).default(600_000), max_turns: positiveInt.default(8) })
    .prefault({}),
  /** What provisioning may reach; nothing by default. */
  network: z.strictObject({ allow_hosts: z.array(allowedHost).max(1000).default([]) }).prefault({}),
  /** What one session may spend, unless it is set otherwise; absent means without limit. */
  budgets: z
    .strictObject({
      /** Of prompts and answers together. */
      tokens: positiveInt.max(MAX_LIMIT).optional(),
      /** Of decoding. */
      time_ms: positiveInt.max(MAX_LIMIT).optional(),
      cost: z
        .number()
        .min(1 / MICROS)
        .max(MAX_LIMIT / MICROS)
        .optional(),
      price_per_1k_tokens: price.optional(),
    })
    .prefault({}),
});

/** The whole file: fields, defaults and the rules across fields. */
export const ConfigSchema = ConfigFields.superRefine((config, context) => {
  const ids = config.pools.map((pool) => pool.id);
  for (const index of repeats(ids)) {
    const first = ids.indexOf(ids[index] ?? '');
    context.addIssue({
      code: 'custom',
      path: ['pools', index, 'id'],
      message: `is already the id of pools[${first}] — give every pool its own id`,
    });
  }
  const simulated = config.gpu.devices;
  if (simulated === undefined) return;
  for (const [poolIndex, pool] of config.pools.entries()) {
    for (const [index, device] of pool.devices.entries()) {
      if (device < simulated.length) continue;
      const message = `device ${device} does not exist: gpu.devices describes 0 to ${simulated.length - 1} — use one of those, or describe more`;
      context.addIssue({ code: 'custom', path: ['pools', poolIndex, 'devices', index], message });
    }
  }
});

/** The JSON Schema of the file, the same object content on every call. The rules across fields are not in it. */
export function configJsonSchema(): Record<string, unknown> {
  return { ...z.toJSONSchema(ConfigSchema, { io: 'input' }) };
}

export type Config = z.output<typeof ConfigSchema>;
/** The file as a program may write it, defaults left out. */
export type ConfigInput = z.input<typeof ConfigSchema>;
export type PoolConfig = z.output<typeof PoolFields>;
