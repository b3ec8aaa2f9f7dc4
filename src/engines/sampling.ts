/**
 * How tokens are chosen, for every task alike. Written out in every request, so that neither an engine's build nor a
 * model's own defaults change the text. A dialect sends what its engine has words for.
 */
export const SAMPLER_PROFILE = { version: 'default-1', temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05 } as const;

/** The engines read 64 bits, but a JSON number is exact everywhere only below this. */
const SEED_LIMIT = 2n ** 53n;

/** Folds a seed to 0 … 2^53-1. Seeds that fit stay as they are. */
export function jsonSeed(seed: bigint): number {
  return Number(seed % SEED_LIMIT);
}
