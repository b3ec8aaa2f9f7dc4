/** What the NVML helper tells its parent. Read strictly: it comes from a process that runs foreign native code. */
import { z } from 'zod';
import { MAX_NVML_PROCESSES } from './nvmlCodes.js';

const gauge = z.number().nullable();

const sample = z.object({
  uuid: z.string().max(96),
  index: z.int().nonnegative(),
  name: z.string().max(200),
  memoryTotalBytes: gauge,
  memoryFreeBytes: gauge,
  memoryUsedBytes: gauge,
  utilizationPercent: gauge,
  temperatureC: gauge,
  eccUncorrected: gauge,
  powerWatts: gauge,
  computeCapability: z.string().max(16).nullable(),
  migEnabled: z.boolean().nullable(),
  processes: z
    .array(z.object({ pid: z.int().positive(), usedBytes: gauge }))
    .max(MAX_NVML_PROCESSES)
    .readonly()
    .nullable(),
});

const lost = z.object({
  uuid: z.string().max(96).nullable(),
  index: z.int().nullable(),
  reason: z.string().max(500),
});

const poll = z.discriminatedUnion('ok', [
  z.object({
    ok: z.literal(true),
    samples: z.array(sample).max(256).readonly(),
    lost: z.array(lost).max(256).readonly(),
    complete: z.boolean(),
  }),
  z.object({ ok: z.literal(false), message: z.string(), fix: z.string(), driverGone: z.boolean() }),
]);

export const nvmlMessage = z.discriminatedUnion('type', [
  /** NVML cannot be used here, now or later. */
  z.object({ type: z.literal('unavailable'), reason: z.string() }),
  z.object({ type: z.literal('poll'), poll }),
  z.object({ type: z.literal('xid'), uuid: z.string().max(96).nullable(), xid: z.int().nonnegative() }),
  /** XIDs of some or all GPUs will not be told. */
  z.object({ type: z.literal('xids_unavailable'), reason: z.string() }),
]);

export type NvmlMessage = z.infer<typeof nvmlMessage>;
