/**
 * Log lines of the launcher, the router and the shards, and the ways they go. The launcher prints what the others log;
 * its own last word, `Error: …`, is not a log line.
 */
import type { Death, Deaths } from '../deaths.js';
import type { SimLogs } from '../protocol.js';
import { generationFailed } from './errors.js';
import { capacityTokens } from './metrics.js';

const BYTES_PER_GIB = 1024 ** 3;
/** A level, padded to five characters: what is logged. Anything else is printed as it is. */
const LOGGED = /^(?:ERROR| WARN| INFO) /;

type Level = 'ERROR' | ' WARN' | ' INFO';
const launcher = (level: Level, text: string): string => `${level} text_generation_launcher: ${text}`;
const shard = (level: Level, text: string): string =>
  `${level} shard-manager: text_generation_launcher: ${text} rank=0`;
const router = (level: Level, place: string, text: string): string => `${level} ${place}: ${text}`;

export const logs: SimLogs = {
  format: (line) => (LOGGED.test(line) ? `${new Date().toISOString().replace('Z', '000Z')} ${line}` : line),
  loading: ({ model }) => [
    ` INFO download: text_generation_launcher: Starting check and download process for ${model}`,
    ` INFO download: text_generation_launcher: Successfully downloaded weights for ${model}`,
    shard(' INFO', 'Starting shard'),
  ],
  loaded: (config) => [
    shard(' INFO', `Shard ready in ${(config.loadMs / 1000).toFixed(9)}s`),
    launcher(' INFO', 'Starting Webserver'),
    router(' INFO', 'text_generation_router_v3: backends/v3/src/lib.rs:125', 'Warming up model'),
    router(
      ' INFO',
      'text_generation_router_v3: backends/v3/src/lib.rs:137',
      `Setting max batch total tokens to ${capacityTokens(config)}`,
    ),
    router(' INFO', 'text_generation_router_v3: backends/v3/src/lib.rs:166', 'Using backend V3'),
  ],
  listening: () => [router(' INFO', 'text_generation_router::server: router/src/server.rs:2302', 'Connected')],
  stopping: () => [
    launcher(' INFO', 'Terminating webserver'),
    launcher(' INFO', 'Waiting for webserver to gracefully shutdown'),
    router(
      ' INFO',
      'text_generation_router::server: router/src/server.rs:2370',
      'signal received, starting graceful shutdown',
    ),
  ],
  loadOom: ({ vramBytes, vramFreeBytes }) => [
    launcher('ERROR', 'Error when initializing model'),
    ...traceback(outOfMemory(vramBytes, vramFreeBytes)),
    shard('ERROR', 'Shard complete standard error output:\n'),
    ...traceback(outOfMemory(vramBytes, vramFreeBytes)),
    launcher('ERROR', 'Shard 0 failed to start'),
    launcher(' INFO', 'Shutting down shards'),
    'Error: ShardCannotStart',
  ],
  // One shard serves on, in 32-bit floats, by the plain implementation; several could not start.
  noGpu: () => [
    launcher(' WARN', 'Cannot determine GPU compute capability: RuntimeError: No CUDA GPUs are available'),
    launcher(' INFO', 'Detected system cpu'),
    launcher(
      ' WARN',
      "Could not import Flash Attention enabled models: System cpu doesn't support flash/paged attention",
    ),
  ],
};

function traceback(error: string): readonly string[] {
  return ['Traceback (most recent call last):', '  File "<string>", line 1, in <module>', error, ''];
}

function outOfMemory(wantedBytes: number, freeBytes: number): string {
  const gib = (bytes: number): string => (Number.isFinite(bytes) ? bytes / BYTES_PER_GIB : 24).toFixed(2);
  return `torch.OutOfMemoryError: CUDA out of memory. Tried to allocate ${gib(wantedBytes)} GiB. GPU 0 has a total capacity of ${gib(freeBytes)} GiB`;
}

/** The shard process is gone, and the launcher ends the rest. Exit code 1, as for every error of the launcher. */
const SHARD_GONE = [
  launcher('ERROR', 'Shard 0 crashed'),
  launcher(' INFO', 'Terminating webserver'),
  launcher(' INFO', 'Waiting for webserver to gracefully shutdown'),
  launcher(' INFO', 'Shutting down shards'),
  'Error: ShardFailed',
] as const;

/** What torch cannot recover from: the shard answers the call with the error and then ends itself. */
function runtimeError(error: string, message: string): Death {
  return {
    lines: [
      launcher('ERROR', 'Method Decode encountered an error.'),
      ...traceback(`${error}: ${message}`),
      router(
        'ERROR',
        'batch{batch_size=1}:decode: text_generation_router_v3::client: backends/v3/src/client/mod.rs:45',
        `Server error: ${message}`,
      ),
      router(
        'ERROR',
        'generate_stream:async_stream:infer:send_error: text_generation_router_v3::backend: backends/v3/src/backend.rs:488',
        generationFailed(message).message,
      ),
      shard('ERROR', 'Shard complete standard error output:\n'),
      ...SHARD_GONE,
    ],
    toldError: message,
    end: { exitCode: 1 },
  };
}

export const deaths: Deaths = {
  crash: {
    lines: [
      shard('ERROR', 'Shard complete standard error output:\n'),
      shard('ERROR', 'Shard process was signaled to shutdown with signal 6'),
      ...SHARD_GONE,
    ],
    toldError: 'transport error',
    end: { exitCode: 1 },
  },
  cudaError: runtimeError(
    'RuntimeError',
    'CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be incorrect.\n',
  ),
  runtimeOom: runtimeError(
    'torch.OutOfMemoryError',
    'CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.21 GiB is free.',
  ),
};
