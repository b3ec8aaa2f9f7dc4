/** llama-server's Prometheus page. Pure. */
import type { SimEngine } from '../engine.js';
import { type Family, familyText } from '../prometheus.js';

/** Without labels. Totals advance when a request leaves its slot. */
export function metricsText({ counters, slots }: SimEngine): string {
  const perSecond = (tokens: number, ms: number): number => (ms > 0 ? (tokens * 1000) / ms : 0);
  const busySlots = counters.busySlotSteps / Math.max(counters.decodeSteps, 1);
  const rows: readonly (readonly [name: string, type: Family['type'], help: string, value: number])[] = [
    ['prompt_tokens_total', 'counter', 'Prompt tokens processed, without cached ones', counters.promptTokens],
    ['prompt_tokens_cached_total', 'counter', 'Prompt tokens reused from the cache', counters.cachedTokens],
    ['prompt_seconds_total', 'counter', 'Time spent on prompts', counters.promptMs / 1000],
    ['tokens_predicted_total', 'counter', 'Tokens generated', counters.decodedTokens],
    ['tokens_predicted_seconds_total', 'counter', 'Time spent generating', counters.decodeMs / 1000],
    ['n_decode_total', 'counter', 'Decode calls', counters.decodedTokens],
    ['n_tokens_max', 'counter', 'Longest sequence seen', counters.longestSequence],
    ['prompt_tokens_seconds', 'gauge', 'Prompt tokens per second', perSecond(counters.promptTokens, counters.promptMs)],
    ['predicted_tokens_seconds', 'gauge', 'Tokens per second', perSecond(counters.decodedTokens, counters.decodeMs)],
    ['requests_processing', 'gauge', 'Requests in a slot', slots.busyCount],
    ['requests_deferred', 'gauge', 'Requests waiting for a slot', slots.deferredCount],
    ['n_busy_slots_per_decode', 'gauge', 'Busy slots per decode call, on average', busySlots],
  ];
  return rows
    .map(([name, type, help, value]) => familyText({ name: `llamacpp:${name}`, type, help, samples: [{ value }] }))
    .join('');
}
