/** The most GPU memory that engines were seen to take: by model, by the way they were started, and by GPU. */
import type { Database, Statement } from './database.js';

export interface VramPeakKey {
  readonly modelKey: string;
  readonly flagsKey: string;
}

export interface VramPeakRow {
  readonly gpuUuid: string;
  readonly peakBytes: number;
  /** Starts in which it was looked at. */
  readonly runs: number;
}

const READ: Statement = {
  name: 'vram_peak_read',
  // A double holds every amount of memory to the byte, and the driver hands out bigints as text.
  text: `
SELECT gpu_uuid AS "gpuUuid", peak_bytes::double precision AS "peakBytes", samples AS runs
FROM vram_peaks WHERE model_key = $1 AND flags_key = $2 AND gpu_uuid = ANY($3::text[])`,
};

export async function readVramPeaks(
  db: Database,
  { modelKey, flagsKey }: VramPeakKey,
  gpuUuids: readonly string[],
): Promise<VramPeakRow[]> {
  return db.query(READ, [modelKey, flagsKey, gpuUuids]);
}

const RAISE: Statement = {
  name: 'vram_peak_raise',
  text: `
INSERT INTO vram_peaks AS p (model_key, flags_key, gpu_uuid, peak_bytes, samples, observed_at)
VALUES ($1, $2, $3, $4, $5, now())
ON CONFLICT (model_key, flags_key, gpu_uuid) DO UPDATE SET
  peak_bytes = greatest(p.peak_bytes, excluded.peak_bytes), samples = p.samples + excluded.samples,
  observed_at = excluded.observed_at`,
};

/** A peak never falls; `runs` are added to those known. */
export async function raiseVramPeak(db: Database, key: VramPeakKey, peak: VramPeakRow): Promise<void> {
  await db.query(RAISE, [key.modelKey, key.flagsKey, peak.gpuUuid, peak.peakBytes, peak.runs]);
}
