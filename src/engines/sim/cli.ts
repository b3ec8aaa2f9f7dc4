/** The `engine-sim` command: a process that behaves like an inference engine, down to its log lines and signals. */
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { type SimConfig, SimEngine } from './engine.js';
import { describeFaults, FaultSet } from './faults.js';
import { createLlamaCppServer } from './llamacpp.js';

const PROTOCOLS: Readonly<Record<string, (engine: SimEngine) => Server>> = { llamacpp: createLlamaCppServer };

const USAGE = `usage: engine-sim --protocol llamacpp [options]
  --host HOST  --port N (0 = any free)  --model NAME  --ctx N (tokens per slot)  --slots N
  --tokens-per-second N (0 = as fast as possible)  --first-token-ms N  --load-ms N  --api-key KEY
  --fault FAULT (may be repeated; also at run time: POST /sim/control {"fault":"hang-at-token:5"}):
${describeFaults()}`;

interface SimArgs extends SimConfig {
  readonly createServer: (engine: SimEngine) => Server;
  readonly faults: readonly string[];
}

/** Throws an Error whose message is for the person at the terminal. */
export function parseSimArgs(argv: readonly string[], env: NodeJS.ProcessEnv = {}): SimArgs {
  const { values } = parseArgs({
    args: [...argv],
    options: {
      protocol: { type: 'string', default: 'llamacpp' },
      host: { type: 'string', default: '127.0.0.1' },
      port: { type: 'string', default: '8080' },
      model: { type: 'string', default: 'sim.gguf' },
      ctx: { type: 'string', default: '4096' },
      slots: { type: 'string', default: '1' },
      'tokens-per-second': { type: 'string', default: '50' },
      'first-token-ms': { type: 'string', default: '0' },
      'load-ms': { type: 'string', default: '0' },
      'api-key': { type: 'string' },
      fault: { type: 'string', multiple: true, default: [] },
    },
  });
  const createServer = Object.hasOwn(PROTOCOLS, values.protocol) ? PROTOCOLS[values.protocol] : undefined;
  if (createServer === undefined) {
    const built = Object.keys(PROTOCOLS).join(', ');
    throw new Error(`protocol '${values.protocol}' is not built yet (built: ${built})\n${USAGE}`);
  }
  return {
    createServer,
    host: values.host,
    port: atLeast(0, 'port', values.port),
    model: values.model,
    contextTokens: atLeast(2, 'ctx', values.ctx),
    slots: atLeast(1, 'slots', values.slots),
    tokensPerSecond: atLeast(0, 'tokens-per-second', values['tokens-per-second']),
    firstTokenMs: atLeast(0, 'first-token-ms', values['first-token-ms']),
    loadMs: atLeast(0, 'load-ms', values['load-ms']),
    apiKey: values['api-key'] ?? env.LLAMA_API_KEY ?? null,
    faults: values.fault,
  };
}

function atLeast(least: number, name: string, text: string): number {
  const value = Number(text);
  if (text.trim() !== '' && Number.isSafeInteger(value) && value >= least) return value;
  throw new Error(`--${name} must be a whole number of at least ${least}, not '${text}'\n${USAGE}`);
}

/** Runs until SIGTERM or SIGINT, then resolves. Rejects on bad arguments and when the port cannot be had. */
export async function runEngineSim(argv: string[]): Promise<void> {
  const { createServer, faults: initialFaults, ...config } = parseSimArgs(argv, process.env);
  const faults = new FaultSet();
  faults.set(initialFaults);
  const engine = new SimEngine(config, faults, log);
  const stopping = new AbortController();
  const stopListening = onStopSignal(engine, stopping);
  const server = createServer(engine);
  try {
    await listen(server, config);
    await engine.load(stopping.signal);
    log(`srv  llama_server: listening on ${urlOf(server, config.host)}`);
    await once(stopping.signal, 'abort');
  } catch (error) {
    if (!stopping.signal.aborted) throw error;
  } finally {
    stopListening();
    // Work under way is not drained: streams end without their last frame.
    server.close();
    server.closeAllConnections();
  }
  log('srv  llama_server: cleaning up before exit...');
}

async function listen(server: Server, config: SimConfig): Promise<void> {
  server.listen(config.port, config.host);
  await once(server, 'listening'); // rejects on `error`
  // Known before the model is loaded, for whoever wants to watch the loading.
  log(`srv  llama_server: loading model '${config.model}', bound to ${urlOf(server, config.host)}`);
}

function urlOf(server: Server, host: string): string {
  const { port } = server.address() as AddressInfo;
  return `http://${host.includes(':') ? `[${host}]` : host}:${port}`;
}

/** Returns what takes the handlers off again. */
function onStopSignal(engine: SimEngine, stopping: AbortController): () => void {
  const signals = ['SIGTERM', 'SIGINT'] as const;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGTERM' && engine.faults.has('ignore-sigterm')) return;
    // The real server handles signals only once its model is loaded; before that they kill it outright.
    if (!engine.loaded) {
      process.removeListener(signal, onSignal);
      process.kill(process.pid, signal);
      return;
    }
    stopping.abort();
  };
  for (const signal of signals) process.on(signal, onSignal);
  return () => {
    for (const signal of signals) process.removeListener(signal, onSignal);
  };
}

/** `minutes.seconds.milliseconds.microseconds level message`, as llama-server writes. */
function log(message: string): void {
  const totalMicros = Math.floor(performance.now() * 1000);
  const pad = (value: number, width: number): string => String(Math.floor(value)).padStart(width, '0');
  const [minutes, seconds] = [totalMicros / 60e6, (totalMicros / 1e6) % 60];
  const time = `${Math.floor(minutes)}.${pad(seconds, 2)}.${pad((totalMicros / 1000) % 1000, 3)}.${pad(totalMicros % 1000, 3)}`;
  process.stderr.write(`${time} I ${message}\n`);
}
