/**
 * The page of the metrics port: the gauges of the TensorRT-LLM backend, under the name of the model that decodes, and
 * some of the server's own counters. No token is counted.
 */
import type { SimEngine } from '../engine.js';
import { type Family, familyText } from '../prometheus.js';
import { INNER_MODEL } from './request.js';

const TOKENS_PER_BLOCK = 64;

export function metricsText(engine: SimEngine): string {
  return [...backendFamilies(engine), ...serverFamilies(engine)].map((family) => familyText(family)).join('');
}

function gauges(name: string, help: string, label: string, values: Readonly<Record<string, number>>): Family {
  const samples = Object.entries(values).map(([key, value]) => {
    return { labels: { [label]: key, model: INNER_MODEL, version: '1' }, value };
  });
  return { name, help, type: 'gauge', samples };
}

function backendFamilies(engine: SimEngine): readonly Family[] {
  const { slots, config, counters } = engine;
  const { busyCount: busy, deferredCount: waiting } = slots;
  const blocksOf = (tokens: number): number => Math.ceil(tokens / TOKENS_PER_BLOCK);
  const max = blocksOf(config.contextTokens) * config.slots;
  let used = 0;
  for (const { task, busy: isBusy } of slots.slots) {
    if (isBusy && task !== null) used += blocksOf(task.promptTokens + task.decoded);
  }
  return [
    gauges('nv_trt_llm_request_metrics', 'TRT LLM request metrics', 'request_type', {
      ...{ waiting, context: 0, scheduled: busy, max: config.slots, active: busy },
    }),
    gauges('nv_trt_llm_runtime_memory_metrics', 'TRT LLM runtime memory metrics', 'memory_type', {
      ...{ pinned: 0, gpu: config.vramBytes, cpu: 0 },
    }),
    gauges('nv_trt_llm_kv_cache_block_metrics', 'TRT LLM KV cache block metrics', 'kv_cache_block_type', {
      ...{ fraction: used / max, tokens_per: TOKENS_PER_BLOCK, used, free: max - used, max },
    }),
    gauges(
      'nv_trt_llm_inflight_batcher_metrics',
      'TRT LLM inflight_batcher-specific metrics',
      'inflight_batcher_specific_metric',
      { micro_batch_id: 0, generation_requests: busy, total_context_tokens: 0 },
    ),
    gauges('nv_trt_llm_general_metrics', 'General TRT LLM metrics', 'general_type', {
      ...{ iteration_counter: counters.decodedTokens, timestamp: engine.toldMs(Date.now()) * 1000 },
    }),
  ];
}

function serverFamilies({ toldModel, completions, slots }: SimEngine): readonly Family[] {
  const labels = { model: toldModel, version: '1' };
  return [
    {
      name: 'nv_inference_request_success',
      help: 'Number of successful inference requests, all batch sizes',
      type: 'counter',
      samples: [{ labels, value: completions.finished }],
    },
    {
      name: 'nv_inference_request_failure',
      help: 'Number of failed inference requests, all batch sizes',
      type: 'counter',
      samples: [{ labels: { ...labels, reason: 'OTHER' }, value: completions.abandoned }],
    },
    {
      name: 'nv_inference_pending_request_count',
      help: 'Instantaneous number of pending requests awaiting execution per-model.',
      type: 'gauge',
      samples: [{ labels, value: slots.deferredCount }],
    },
  ];
}
