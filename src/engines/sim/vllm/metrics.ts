/** vLLM's Prometheus page: every series carries the engine's number and the model's name. Pure. */
import type { SimEngine } from '../engine.js';

/** Gauges change with the engine's steps and totals with each request that leaves, in the real server with each token. */
export function metricsText(engine: SimEngine): string {
  const { slots, counters, completions } = engine;
  const rows: readonly (readonly [name: string, type: 'gauge' | 'counter', help: string, value: number])[] = [
    ['num_requests_running', 'gauge', 'Number of requests in model execution batches.', slots.busyCount],
    ['num_requests_waiting', 'gauge', 'Number of requests waiting to be processed.', slots.deferredCount],
    ['kv_cache_usage_perc', 'gauge', 'KV-cache usage. 1 means 100 percent usage.', kvUsage(engine)],
    ['num_preemptions', 'counter', 'Cumulative number of preemption from the engine.', 0],
    ['prompt_tokens', 'counter', 'Number of prefill tokens processed.', counters.promptTokens],
    ['generation_tokens', 'counter', 'Number of generation tokens processed.', counters.decodedTokens],
  ];
  const labels = `engine="0",model_name="${labelText(engine.toldModel)}"`;
  const series = rows.map(([name, type, help, value]) => {
    const suffix = type === 'counter' ? '_total' : '';
    return family(`${name}${suffix}`, type, help, `vllm:${name}${suffix}{${labels}} ${goFloat(value)}\n`);
  });
  const reasons: readonly (readonly [reason: string, count: number])[] = [
    ['stop', 0],
    ['length', completions.finished],
    ['abort', completions.abandoned],
    ['error', 0],
  ];
  const samples = reasons.map(
    ([reason, count]) =>
      `vllm:request_success_total{engine="0",finished_reason="${reason}",model_name="${labelText(engine.toldModel)}"} ${goFloat(count)}\n`,
  );
  const success = family(
    'request_success_total',
    'counter',
    'Count of successfully processed requests.',
    samples.join(''),
  );
  return [...series, success].join('');
}

function family(name: string, type: string, help: string, samples: string): string {
  return `# HELP vllm:${name} ${help}\n# TYPE vllm:${name} ${type}\n${samples}`;
}

/** 0 … 1, of the room that all sequences at their longest would take. */
function kvUsage({ slots, config }: SimEngine): number {
  const held = slots.slots.map(({ busy, task }) => (busy && task !== null ? task.promptTokens + task.decoded : 0));
  return held.reduce((sum, tokens) => sum + tokens, 0) / (config.slots * config.contextTokens);
}

function labelText(text: string): string {
  return text.replace(/\\/g, '\\\\').replace(/"/g, '\\"').replace(/\n/g, '\\n');
}

/** Python's client writes numbers as Go would: `0.0`, `55.0`, and from a million on `1.5e+06`. */
export function goFloat(value: number): string {
  const text = Number.isInteger(value) ? `${value}.0` : String(value);
  const point = text.indexOf('.');
  if (value <= 0 || point <= 6) return text;
  const digits = `${text[0]}.${text.slice(1, point)}${text.slice(point + 1)}`.replace(/[0.]+$/, '');
  return `${digits}e+0${point - 1}`;
}
