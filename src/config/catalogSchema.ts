/** The `catalog` and `retention` sections. See schema.ts for the rules of the whole file. */
import { z } from 'zod';
import type { Bounds, Retained } from '../core/retention.js';
import type { TrustPolicy } from '../core/trust.js';
import { positiveInt, text } from './provisioningSchema.js';

const TIB_BYTES = 1024 ** 4;
const GIB_BYTES = 1024 ** 3;

const TrustPolicySchema = z.strictObject({
  /** strict: models that miss what is asked for below, or a signature, take no tasks. */
  mode: z.enum(['strict', 'permissive']).default('permissive'),
  /** Hosts, `*.domain` or `host/path`; empty: any. */
  allowed_registries: z.array(text).default([]),
  require_signature: z.boolean().default(false),
  require_sbom: z.boolean().default(false),
  ca_roots: z.array(text).default([]),
});

export const CatalogSchema = z.strictObject({
  trust_policy: TrustPolicySchema.prefault({}),
  /** Folders that models may be read from when a caller names a file, besides the model cache and the files of pools. */
  model_roots: z
    .array(text.refine((path) => path.startsWith('/'), { error: 'is not an absolute path — begin with /' }))
    .max(100)
    .default([]),
  /** Of one model that is fetched. */
  max_model_bytes: positiveInt.default(TIB_BYTES),
  /** true: also files that are neither GGUF nor safetensors are staged. A pickle runs code when it is loaded. */
  allow_any_format: z.boolean().default(false),
});

/** 0: without this bound. */
const days = z.number().min(0).max(36_500);
const count = z.int().min(0);

const bounded = (byDefault: { days: number; max_count: number }) =>
  z.strictObject({ days: days.default(byDefault.days), max_count: count.default(byDefault.max_count) }).prefault({});

export const RetentionSchema = z.strictObject({
  /** false: nothing is ever removed. */
  enabled: z.boolean().default(true),
  every_ms: z.int().min(100).max(86_400_000).default(600_000),
  /** Ended ones, each with its stream, leases and checks. */
  tasks: bounded({ days: 30, max_count: 1_000_000 }),
  /** Those that no task names and nothing was made from. Bytes count all. */
  artifacts: z
    .strictObject({
      days: days.default(90),
      max_count: count.default(2_000_000),
      max_bytes: count.default(50 * GIB_BYTES),
    })
    .prefault({}),
  pool_events: bounded({ days: 90, max_count: 1_000_000 }),
  quote_grades: bounded({ days: 30, max_count: 1_000_000 }),
  /** Released ones, but for the last of each task. */
  leases: bounded({ days: 30, max_count: 0 }),
  crash_records: bounded({ days: 365, max_count: 10_000 }),
});

/** As the rules take it. */
export function trustPolicyOf(policy: z.output<typeof TrustPolicySchema>): TrustPolicy {
  return {
    mode: policy.mode,
    allowedRegistries: policy.allowed_registries,
    requireSignature: policy.require_signature,
    requireSbom: policy.require_sbom,
    caRoots: policy.ca_roots,
  };
}

/** As the rules take them. */
export function retentionBounds(retention: z.output<typeof RetentionSchema>): Readonly<Record<Retained, Bounds>> {
  const { enabled: _enabled, every_ms: _everyMs, ...sections } = retention;
  const orNull = (bound: number) => (bound === 0 ? null : bound);
  const boundsOf = (section: { days: number; max_count: number; max_bytes?: number }): Bounds => ({
    days: orNull(section.days),
    maxCount: orNull(section.max_count),
    maxBytes: orNull(section.max_bytes ?? 0),
  });
  const { tasks, artifacts, pool_events, quote_grades, leases, crash_records } = sections;
  return {
    tasks: boundsOf(tasks),
    artifacts: boundsOf(artifacts),
    pool_events: boundsOf(pool_events),
    quote_grades: boundsOf(quote_grades),
    leases: boundsOf(leases),
    crash_records: boundsOf(crash_records),
  };
}
