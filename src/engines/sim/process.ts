/** The simulated engine as a process: its listeners, its log, loading, signals and its end. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import type { Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { OutOfMemoryAtLoad, type SimConfig, SimEngine } from './engine.js';
import type { FaultSet } from './faults.js';
import { createControlServer } from './http.js';
import type { SimProtocol } from './protocol.js';

export interface SimRun {
  readonly protocol: SimProtocol;
  readonly config: SimConfig;
  readonly faults: FaultSet;
  /** 0: any free port. */
  readonly metricsPort: number;
  /** null: no control listener. */
  readonly controlPort: number | null;
  readonly drainMs: number;
  /** Whether it ends, whatever it is doing, when its standard input does. */
  readonly exitWithStdin: boolean;
}

/** Runs until it is told to stop; resolves with the exit code. Rejects when a port cannot be had. */
export async function runSim(run: SimRun): Promise<number> {
  const { protocol, config, faults, controlPort, drainMs } = run;
  const log = (lines: readonly string[]): void => {
    for (const line of lines) process.stderr.write(`${protocol.logs.format(line)}\n`);
  };
  const engine = new SimEngine(config, faults, protocol.deaths, (line) => log([line]));
  const stopping = new AbortController();
  const stopListening = onStopSignal(engine, stopping);
  const letGoOfStdin = run.exitWithStdin ? endWithStdin() : () => {};
  const control = controlPort === null ? null : createControlServer(engine);
  const servers: Server[] = [];
  try {
    if (control !== null) note(`control on ${await listen(control, config.host, controlPort ?? 0)}`);
    if (faults.has('orphan-child')) note(`child ${await spawnOrphan()}`);
    if (faults.has('cpu-fallback')) {
      log(protocol.logs.noGpu(config));
      if (!protocol.servesWithoutGpu) return 1;
    }
    await start(run, engine, servers, log, stopping.signal);
    if (!stopping.signal.aborted) await once(stopping.signal, 'abort');
    log(protocol.logs.stopping(stopping.signal.reason, drainMs));
    return await drain(run, engine, servers, log);
  } catch (error) {
    if (stopping.signal.aborted) return 0;
    if (!(error instanceof OutOfMemoryAtLoad)) throw error;
    log(protocol.logs.loadOom(config));
    return 1;
  } finally {
    stopListening();
    letGoOfStdin();
    for (const server of control === null ? servers : [...servers, control]) {
      server.close();
      server.closeAllConnections();
    }
    engine.calls.abortAll(new Error('the process is going'));
  }
}

/** A line of the simulator's own, which no engine writes. */
function note(line: string): void {
  process.stderr.write(`engine-sim: ${line}\n`);
}

async function start(
  { protocol, config, metricsPort }: SimRun,
  engine: SimEngine,
  servers: Server[],
  log: (lines: readonly string[]) => void,
  signal: AbortSignal,
): Promise<void> {
  const open = (server: Server, port: number): Promise<string> => {
    servers.push(server);
    return listen(server, config.host, port);
  };
  const server = protocol.createServer(engine);
  const early = protocol.listensWhileLoading ? await open(server, config.port) : null;
  log(protocol.logs.loading(config, early));
  await engine.load(signal);
  log(protocol.logs.loaded(config));
  const url = early ?? (await open(server, config.port));
  const { metrics } = protocol;
  const metricsUrl = metrics === null ? null : await open(metrics.createServer(engine), metricsPort);
  if (metricsUrl !== null) note(`metrics on ${metricsUrl}`);
  log(protocol.logs.listening(config, url, metricsUrl));
  note(`ready on ${url}`);
}

/** Rejects when the port cannot be had. */
async function listen(server: Server, host: string, port: number): Promise<string> {
  server.listen(port, host);
  await once(server, 'listening'); // rejects on `error`
  const bound = (server.address() as AddressInfo).port;
  return `http://${host.includes(':') ? `[${host}]` : host}:${bound}`;
}

async function drain(
  { protocol, drainMs }: SimRun,
  engine: SimEngine,
  servers: readonly Server[],
  log: (lines: readonly string[]) => void,
): Promise<number> {
  engine.stop();
  for (const server of servers) server.close();
  if (drainMs === 0 || (await engine.calls.settle(drainMs))) return 0;
  const { exitCode, lines } = protocol.stop.overrun;
  log(lines);
  return exitCode;
}

/**
 * A pipe ends when whoever holds its other end is gone, however it went. The group goes too, where this process leads
 * one. Returns what takes the handlers off again.
 */
function endWithStdin(): () => void {
  const onEnd = (): void => {
    try {
      process.kill(-process.pid, 'SIGKILL');
    } catch {
      process.exit(1); // leads no group
    }
  };
  const { stdin } = process;
  stdin.once('end', onEnd).once('error', onEnd).resume();
  return () => {
    stdin.removeListener('end', onEnd).removeListener('error', onEnd);
    stdin.destroy();
  };
}

/** Returns what takes the handlers off again. */
function onStopSignal(engine: SimEngine, stopping: AbortController): () => void {
  const signals = ['SIGTERM', 'SIGINT'] as const;
  const onSignal = (signal: NodeJS.Signals): void => {
    if (signal === 'SIGTERM' && engine.faults.has('ignore-sigterm')) return;
    // Engines handle signals only once their model is loaded; before that they kill outright.
    if (!engine.loaded) {
      process.removeListener(signal, onSignal);
      process.kill(process.pid, signal);
      return;
    }
    stopping.abort(signal);
  };
  for (const signal of signals) process.on(signal, onSignal);
  return () => {
    for (const signal of signals) process.removeListener(signal, onSignal);
  };
}

/** A child in this process group that only SIGKILL ends, or ten minutes. Resolves with its pid once it is immune. */
async function spawnOrphan(): Promise<number> {
  const script = "trap '' TERM INT HUP; echo immune; exec sleep 600 >/dev/null";
  const child = spawn('/bin/sh', ['-c', script], { stdio: ['ignore', 'pipe', 'ignore'] });
  await once(child.stdout, 'data');
  child.stdout.destroy();
  child.unref();
  return child.pid ?? 0;
}
