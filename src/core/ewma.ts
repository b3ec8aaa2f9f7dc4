/** The exponentially weighted mean after one more sample. Pure. */

/** The first sample stands as it is; null is none. @param weight of the new sample, above 0 and at most 1. */
export function ewma(mean: number | null, sample: number | null, weight: number): number | null {
  if (sample === null) return mean;
  return mean === null ? sample : mean + weight * (sample - mean);
}
