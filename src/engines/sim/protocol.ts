/**
 * What a protocol adds to the simulated engine: its HTTP, its log lines, and how its process behaves. A protocol that
 * is built stands in protocols.ts.
 */
import type { Server } from 'node:http';
import type { Deaths } from './deaths.js';
import type { SimConfig, SimEngine } from './engine.js';

export interface SimProtocol {
  readonly name: 'llamacpp' | 'vllm' | 'tgi' | 'triton';
  readonly defaultPort: number;
  /** Environment variable that the engine takes its key from; null when it knows no key. */
  readonly apiKeyVariable: string | null;
  /** True: the port is open while the model loads. False: connections are refused until it is loaded. */
  readonly listensWhileLoading: boolean;
  /** Whether it serves on the CPU when it finds no GPU; otherwise it ends with exit code 1. */
  readonly servesWithoutGpu: boolean;
  createServer(engine: SimEngine): Server;
  /** The second listener of an engine that has its metrics on a port of their own. */
  readonly metrics: { readonly defaultPort: number; createServer(engine: SimEngine): Server } | null;
  readonly logs: SimLogs;
  readonly deaths: Deaths;
  readonly stop: SimStop;
}

/** The engine's own words, as far as somebody reads them to learn how it is. */
export interface SimLogs {
  /** A line as its logger writes it: time, level, prefix. */
  format(line: string): string;
  /** `url`: where it listens already, or null. */
  loading(config: SimConfig, url: string | null): readonly string[];
  loaded(config: SimConfig): readonly string[];
  listening(config: SimConfig, url: string, metricsUrl: string | null): readonly string[];
  stopping(signal: NodeJS.Signals, drainMs: number): readonly string[];
  loadOom(config: SimConfig): readonly string[];
  noGpu(config: SimConfig): readonly string[];
}

/** What SIGTERM does once the model is loaded. While it loads, the signal kills at once, as no handler is there yet. */
export interface SimStop {
  /** How long running requests may still take, ms; 0 cuts them at once. `--drain-ms` sets another time. */
  readonly drainMs: number;
  /** How it ends when they took longer. */
  readonly overrun: { readonly exitCode: number; readonly lines: readonly string[] };
}
