/** The `engine-sim` command: a process that behaves like an inference engine, down to its log lines and signals. */
import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { describeFaults, FaultSet, MAX_MS } from './faults.js';
import { EMBEDDING_DIMENSIONS } from './model.js';
import { runSim, type SimRun } from './process.js';
import { PROTOCOLS } from './protocols.js';

const OPTIONS = {
  protocol: { type: 'string', default: 'llamacpp' },
  host: { type: 'string', default: '127.0.0.1' },
  port: { type: 'string' },
  'metrics-port': { type: 'string' },
  'control-port': { type: 'string' },
  model: { type: 'string', default: 'sim.gguf' },
  ctx: { type: 'string', default: '4096' },
  slots: { type: 'string', default: '1' },
  'tokens-per-second': { type: 'string', default: '50' },
  'first-token-ms': { type: 'string', default: '0' },
  'load-ms': { type: 'string', default: '0' },
  'drain-ms': { type: 'string' },
  'api-key': { type: 'string' },
  'slot-save-path': { type: 'string' },
  embedding: { type: 'boolean', default: false },
  reranking: { type: 'boolean', default: false },
  'version-file': { type: 'string' },
  runner: { type: 'string', default: 'auto' },
  'embedding-dimensions': { type: 'string', default: String(EMBEDDING_DIMENSIONS) },
  'split-characters': { type: 'boolean', default: false },
  'vram-bytes': { type: 'string', default: '4294967296' },
  'vram-free-bytes': { type: 'string' },
  'exit-with-stdin': { type: 'boolean', default: false },
  fault: { type: 'string', multiple: true },
} as const;

/** From and to, both included. */
type Range = readonly [least: number, most: number];
const PORT: Range = [0, 65_535];
const MS: Range = [0, MAX_MS];
const SLOTS: Range = [1, 65_536];
const CONTEXT_TOKENS: Range = [2, 2 ** 30];
const DIMENSIONS: Range = [1, 65_536];
const TOKENS_PER_SECOND: Range = [0, 1_000_000_000];
const BYTES: Range = [0, Number.MAX_SAFE_INTEGER];

const USAGE = `usage: engine-sim --protocol ${[...PROTOCOLS.keys()].join('|')} [options]
  --host HOST  --port N (0 = any free)  --metrics-port N (where the engine has one)
  --control-port N (/sim/control also there, from the start)
  --model NAME  --ctx N (tokens per slot)  --slots N  --api-key KEY
  --embedding  --reranking (each is served only if asked for)  --embedding-dimensions N
  --slot-save-path DIR (llama.cpp: slots can be erased; nothing is saved)
  --runner pooling (vllm: both of these, and no completions)
  --version-file FILE (the engine's version stands there, read at start; without it, that of the protocol)
  --tokens-per-second N (0 = as fast as possible)  --first-token-ms N  --load-ms N
  --drain-ms N (running requests after SIGTERM)  --split-characters (some characters come as two tokens)
  --vram-bytes N (needed)  --vram-free-bytes N (needing more is out of memory at load)
  --exit-with-stdin (ends, with its process group, when its standard input does)
  --fault FAULT (may be repeated; also at run time: POST /sim/control {"fault":"hang-at-token:5"}).
  :N strikes once N tokens of a completion have been sent:
${describeFaults()}`;

/** Throws an Error whose message is for the person at the terminal. */
export function parseSimArgs(argv: readonly string[], env: NodeJS.ProcessEnv = {}): SimRun {
  const { values } = parseArgs({ args: [...argv], options: OPTIONS });
  const protocol = PROTOCOLS.get(values.protocol);
  if (protocol === undefined) {
    const built = [...PROTOCOLS.keys()].join(', ');
    throw new Error(`there is no protocol '${values.protocol}' (there are: ${built})\n${USAGE}`);
  }
  const { apiKeyVariable, metrics, stop } = protocol;
  const faults = new FaultSet();
  faults.set(values.fault ?? []);
  const controlPort = values['control-port'];
  const versionFile = values['version-file'];
  const freeBytes = values['vram-free-bytes'];
  return {
    protocol,
    faults,
    metricsPort: within(PORT, 'metrics-port', values['metrics-port'] ?? String(metrics?.defaultPort ?? 0)),
    controlPort: controlPort === undefined ? null : within(PORT, 'control-port', controlPort),
    drainMs: within(MS, 'drain-ms', values['drain-ms'] ?? String(stop.drainMs)),
    exitWithStdin: values['exit-with-stdin'],
    config: {
      host: values.host,
      port: within(PORT, 'port', values.port ?? String(protocol.defaultPort)),
      model: values.model,
      version: versionFile === undefined ? null : readFileSync(versionFile, 'utf8').trim(),
      contextTokens: within(CONTEXT_TOKENS, 'ctx', values.ctx),
      slots: within(SLOTS, 'slots', values.slots),
      tokensPerSecond: within(TOKENS_PER_SECOND, 'tokens-per-second', values['tokens-per-second']),
      firstTokenMs: within(MS, 'first-token-ms', values['first-token-ms']),
      loadMs: within(MS, 'load-ms', values['load-ms']),
      apiKey: values['api-key'] ?? (apiKeyVariable === null ? null : (env[apiKeyVariable] ?? null)),
      slotActions: values['slot-save-path'] !== undefined,
      generates: values.runner !== 'pooling',
      embedding: values.embedding || values.runner === 'pooling',
      reranking: values.reranking || values.runner === 'pooling',
      embeddingDimensions: within(DIMENSIONS, 'embedding-dimensions', values['embedding-dimensions']),
      splitCharacters: values['split-characters'],
      vramBytes: within(BYTES, 'vram-bytes', values['vram-bytes']),
      vramFreeBytes: freeBytes === undefined ? Number.POSITIVE_INFINITY : within(BYTES, 'vram-free-bytes', freeBytes),
    },
  };
}

function within([least, most]: Range, name: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least && value <= most) return value;
  throw new Error(`--${name} must be a whole number from ${least} to ${most}, not '${text}'\n${USAGE}`);
}

/**
 * Runs until SIGTERM or SIGINT, then resolves; ends the process itself where the engine ends with another code than 0.
 * Rejects on bad arguments and when a port cannot be had.
 */
export async function runEngineSim(argv: string[]): Promise<void> {
  if (argv.includes('--help') || argv.includes('-h')) {
    process.stdout.write(`${USAGE}\n`);
    return;
  }
  const exitCode = await runSim(parseSimArgs(argv, process.env));
  if (exitCode !== 0) process.exit(exitCode);
}
