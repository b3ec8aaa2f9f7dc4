/**
 * Puts the house together, top to bottom: each step opens something and leaves its closer on the scope. Closing runs
 * them in reverse: doors first, then the work behind them, then engines, then the database.
 */
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import type { DestinationStream } from 'pino';
import { pricesMicros, sessionRules } from '../config/budgets.js';
import { retentionBounds } from '../config/catalogSchema.js';
import { checkExposure, listenAddress } from '../config/environment.js';
import { notBuiltYet } from '../config/notBuilt.js';
import type { Config } from '../config/schema.js';
import type { GpuEvent } from '../core/gpu.js';
import type { Reason } from '../core/pool.js';
import { type DataDir, openDataDir } from '../host/dataDir.js';
import { GpuMonitor, type GpuSource } from '../host/gpu/monitor.js';
import { simulatedGpus } from '../host/gpus.js';
import { engineLogFile } from '../host/logFile.js';
import { containerEnvironment } from '../host/provision/program.js';
import { StartupError } from '../host/startupError.js';
import { underContract } from '../rest/contract.js';
import { readOperations } from '../rest/openapi.js';
import { systemClock } from '../runtime/clock.js';
import { Scope } from '../runtime/scope.js';
import { pollUntil } from '../runtime/wait.js';
import { Admission } from '../services/admission.js';
import { Artifacts } from '../services/artifacts.js';
import { Budgets } from '../services/budgets.js';
import { Cancellation } from '../services/cancellation.js';
import { ClusterFleet } from '../services/cluster/clusterFleet.js';
import { Elsewhere } from '../services/cluster/elsewhere.js';
import { Membership } from '../services/cluster/membership.js';
import { ServedElsewhere } from '../services/cluster/servedElsewhere.js';
import { SharedDrain } from '../services/cluster/sharedDrain.js';
import { StopRequests } from '../services/cluster/stopRequests.js';
import { type Wake, Wakes } from '../services/cluster/wakes.js';
import { Dispatcher } from '../services/dispatcher.js';
import { Expiry } from '../services/expiry.js';
import { Gpus } from '../services/gpus.js';
import { Host } from '../services/host.js';
import { LeaseKeeper } from '../services/leases.js';
import { Outbox } from '../services/outbox.js';
import { PoolEvents } from '../services/poolEvents.js';
import { DEFAULT_DRAIN_DEADLINE_MS, Pools } from '../services/pools.js';
import type { ProvisionEnvironment } from '../services/provisioning/plan.js';
import { Provisioning } from '../services/provisioning/provisioning.js';
import { Quotes } from '../services/quotes.js';
import { RateLimits } from '../services/rateLimits.js';
import { Disconnects } from '../services/readers/disconnects.js';
import { ReaderPresence } from '../services/readers/presence.js';
import { Recovery } from '../services/recovery.js';
import { ReplicaLogs } from '../services/replicaLogs.js';
import { Retention } from '../services/retention.js';
import type { Services } from '../services/services.js';
import { SessionEvictions } from '../services/sessionEvictions.js';
import { SessionPlaces } from '../services/sessionPlaces.js';
import { Sessions } from '../services/sessions.js';
import { Stranded } from '../services/stranded.js';
import { StreamHub } from '../services/streams/hub.js';
import { StreamRecorder } from '../services/streams/recorder.js';
import { Crashes } from '../services/supervision/crashes.js';
import { FirstTasks } from '../services/supervision/firstTasks.js';
import { Supervisor } from '../services/supervision/supervisor.js';
import { VramLedger } from '../services/supervision/vram.js';
import { Tasks } from '../services/tasks.js';
import { Verification } from '../services/verification.js';
import type { Database } from '../store/database.js';
import { Telemetry } from '../telemetry/events.js';
import { createLogger } from '../telemetry/log.js';
import { createMetrics } from '../telemetry/metrics.js';
import { keepSecret } from '../telemetry/secrets.js';
import { createDoors } from './doors.js';
import { HttpServer } from './http.js';
import { identityRules } from './identity.js';
import { type Models, openModels } from './models.js';
import { type DatabaseOptions, openDatabase } from './openDatabase.js';
import { OPENAPI_DIR, SIM_ENTRY } from './paths.js';
import { secretsOf } from './secrets.js';

const HTTP_GRACE_MS = 2_000;
const POOLS_READY_DEADLINE_MS = 15_000;
const READY_LOOK_MS = 20;

export interface ControlPlaneOptions extends DatabaseOptions {
  /** Relative paths of the configuration start here. */
  readonly configDir: string;
  readonly logTo: DestinationStream;
  /** How long the start waits for pools that are coming, ms; it succeeds without them too. */
  readonly poolsReadyDeadlineMs?: number;
  /** Ends that wait: whoever is asked to stop does not wait for pools first. */
  readonly stopWaiting?: AbortSignal;
}

export interface ControlPlane extends AsyncDisposable {
  /** http://host:port */
  readonly url: string;
  readonly dataDir: string;
  readonly databaseIsEmbedded: boolean;
  readonly pools: readonly { readonly id: string; readonly ready: boolean; readonly reasons: readonly Reason[] }[];
  close(): Promise<void>;
}

/** @throws StartupError | ConfigError with a cause and a fix; nothing is left running then. */
export async function startControlPlane(options: ControlPlaneOptions): Promise<ControlPlane> {
  keepSecret(secretsOf(options.environment, options.config));
  const telemetry = new Telemetry(createLogger(options.logTo), createMetrics());
  const scope = new Scope((name, error) => {
    if (error !== undefined) telemetry.log.error({ step: name, err: error }, 'closing failed');
  });
  try {
    return await open(options, telemetry, scope);
  } catch (error) {
    await scope.close().catch(() => {});
    throw error;
  }
}

async function open(options: ControlPlaneOptions, telemetry: Telemetry, scope: Scope): Promise<ControlPlane> {
  const { environment, config, onStep } = options;
  const address = listenAddress(environment, config.server.addr);
  checkExposure(address, environment.secrets.authToken);
  for (const note of notBuiltYet(config)) telemetry.log.warn({ human: note }, 'setting without effect');
  const dataDir = await openDataDir(environment.homeDir);
  scope.defer('data directory', async () => dataDir[Symbol.asyncDispose]());
  const rules = identityRules(environment, address, config.server);
  const server = new HttpServer({ rules, telemetry });
  const url = await listen(server, address);
  scope.defer('http server', () => server.close(HTTP_GRACE_MS));
  dataDir.setAddress(url);

  const { db, databaseIsEmbedded } = await openDatabase(options, telemetry, dataDir, scope);
  onStep('starting the control plane');
  const house = await furnish(options, telemetry, dataDir, { db, url }, scope);
  const doors = createDoors({ ...house, db, telemetry, rules, environment });
  scope.defer('doors', () => doors.close());
  server.open({ ...doors, routes: underContract(doors.routes, readOperations(OPENAPI_DIR)) });
  // `serve` prints nothing else, and the system may have chosen the port.
  telemetry.log.info({ url, human: `The doors are open at ${url}.` }, 'doors open');
  // Also before they are sent away: that is not their going.
  scope.defer('task readers first', house.stopReaders);
  scope.defer('readiness', () => server.shut());

  onStep('waiting for the pools');
  const health = () => config.pools.map(({ id }) => ({ id, ...house.supervisor.health(id) }));
  const preloaded = new Set(config.pools.flatMap(({ id, preload }) => (preload ? [id] : [])));
  await pollUntil(async () => health().every((pool) => pool.ready || !preloaded.has(pool.id)), {
    everyMs: READY_LOOK_MS,
    deadlineMs: options.poolsReadyDeadlineMs ?? POOLS_READY_DEADLINE_MS,
    ...(options.stopWaiting !== undefined && { signal: options.stopWaiting }),
  });
  return {
    url,
    dataDir: dataDir.path,
    databaseIsEmbedded,
    pools: health(),
    close: () => scope.close(),
    [Symbol.asyncDispose]: () => scope.close(),
  };
}

async function listen(server: HttpServer, address: { host: string; port: number }): Promise<string> {
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  try {
    return `http://${host}:${await server.listen(address.host, address.port)}`;
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : '';
    if (code === 'EADDRINUSE') {
      throw new StartupError(
        `${host}:${address.port} is taken by another program.`,
        'Stop that one, or set ORCHD_ADDR=127.0.0.1:PORT.',
      );
    }
    throw new StartupError(
      `Cannot listen on ${host}:${address.port}: ${code}.`,
      'Set ORCHD_ADDR to an address of this machine.',
    );
  }
}

function gpuSource(config: Config, nodeId: string, vram: () => VramLedger): GpuSource {
  if (config.gpu.mode === 'nvidia') return { kind: 'nvidia' };
  const gpus = simulatedGpus(nodeId, config.gpu.devices ?? []);
  return { kind: 'simulated', gpus, use: ({ uuid }) => vram().simulatedUse(uuid) };
}

/** The id under which this life of the node holds leases, and that of the life before, which is known to be over. */
function takeHolderId(dataDir: DataDir): { holder: string; deadHolders: string[] } {
  const file = join(dataDir.runDir, 'lease-holder');
  const deadHolders = existsSync(file)
    ? readFileSync(file, 'utf8')
        .split('\n')
        .filter((line) => line !== '')
    : [];
  const holder = randomUUID();
  writeFileSync(file, [holder, ...deadHolders.slice(0, 7)].join('\n'));
  return { holder, deadHolders };
}

interface House {
  readonly services: Services;
  readonly supervisor: Supervisor;
  readonly stopReaders: () => Promise<void>;
}

/** Everything between the database and the doors, started in the order in which it may be needed. */
async function furnish(
  options: ControlPlaneOptions,
  telemetry: Telemetry,
  dataDir: DataDir,
  { db, url }: { readonly db: Database; readonly url: string },
  scope: Scope,
): Promise<House> {
  const { config } = options;
  const clock = systemClock;
  const onError = (name: string, error: unknown) => telemetry.backgroundFailure(name, error);
  const { holder, deadHolders } = takeHolderId(dataDir);
  const poolEvents = new PoolEvents(db, telemetry);
  const membership = new Membership({ db, nodeId: dataDir.nodeId, url, events: poolEvents, telemetry });
  const provisionEnv: ProvisionEnvironment = {
    homeDir: dataDir.path,
    configDir: resolve(options.configDir),
    allowHosts: config.network.allow_hosts,
    simulatedGpus: config.gpu.mode === 'simulated',
    searchPath: process.env.PATH ?? '',
    catalogDigests: (path) => models.view.digestsOfPath(path),
  };
  const { nodeId, logsDir } = dataDir;
  const provisioning = new Provisioning({ db, telemetry, nodeId, logsDir, pools: config.pools, env: provisionEnv });
  const outbox = new Outbox(telemetry);
  const crashes = new Crashes({ db, clock, events: poolEvents, telemetry, outbox });
  // GPUs are read before there is anything to run on them, and tell what befalls them to what runs there later.
  let onGpuEvent: (event: GpuEvent) => void = () => {};
  const hash = (text: string) => createHash('sha256').update(text).digest('hex');
  const monitor: GpuMonitor = new GpuMonitor({
    source: gpuSource(config, nodeId, () => vram),
    onEvent: (event) => onGpuEvent(event),
    onReadings: () => vram.look(),
  });
  const readings = () => monitor.readings();
  const vram = new VramLedger({ db, clock, telemetry, events: poolEvents, nodeId, readings, hash });
  scope.defer('gpu monitor', () => monitor.close());
  const inventory = await monitor.start();
  // The dispatcher needs the fleet and the fleet wakes the dispatcher: the wake-up is made first and wired later.
  let wakeDispatcher = () => {};
  const supervisor: Supervisor = new Supervisor({
    db,
    clock,
    telemetry,
    events: poolEvents,
    crashes,
    outbox,
    config,
    gpus: inventory.ok ? inventory.gpus : [],
    gpuObstacle: inventory.ok ? null : { code: 'NO_GPU', message: inventory.message, fix: inventory.fix },
    gpuNow: (uuid) => gpus.now(uuid),
    vram,
    nodeId: dataDir.nodeId,
    membership,
    homeDir: dataDir.path,
    recipeEnv: {
      ...provisionEnv,
      simEntry: SIM_ENTRY,
      nodeBinary: process.execPath,
      containerEnv: containerEnvironment(),
      fileExists: existsSync,
    },
    versionsElsewhere: (poolId) => elsewhere.pool(poolId)?.versions ?? [],
    preparerOf: (pool) => provisioning.prepareFor(pool),
    chance: Math.random,
    hash,
    onFleetChange: () => wakeDispatcher(),
  });
  const gpus: Gpus = new Gpus({
    readings: () => monitor.readings(),
    engines: supervisor,
    events: poolEvents,
    telemetry,
  });
  const host = new Host();
  telemetry.measuredBy(() => telemetry.hostMemoryRead(host.memory()));
  onGpuEvent = (event) => gpus.handle(event);
  const presence = new ReaderPresence({ db, nodeId, onError });
  // What wakes others is woken by them: made first, wired later.
  let tellOthers = (_what: Wake) => {};
  const onChange = () => tellOthers('log');
  const hub = new StreamHub({ db, presence, onChange, onError });
  const recorder = new StreamRecorder(db, (error) => onError('stream log', error), onChange);
  const leases = new LeaseKeeper(db, clock, holder, onError);
  const drains = new SharedDrain(supervisor);
  const elsewhere: Elsewhere = new Elsewhere({ db, nodeId, onPool: (pool) => drains.follow(pool), onError });
  const fleet = new ClusterFleet(supervisor, elsewhere);
  const quotes = new Quotes({ db, telemetry, assumedServiceMs: assumedServiceTimes(config) });
  const places = new SessionPlaces({ db, clock, ttlMs: config.sessions.ttl_ms });
  const dispatcher = new Dispatcher({ db, clock, hub, recorder, leases, fleet, telemetry, quotes, places }, () =>
    tellOthers('queue'),
  );
  const servedElsewhere = new ServedElsewhere({ db, holder, elsewhere, quotes, dispatcher, onError });
  const stopRequests = new StopRequests({ db, leases, dispatcher, onError });
  const wakes = new Wakes({
    ...{ db, nodeId, onError },
    hasOthers: () => elsewhere.isRunning,
    on: { queue: () => dispatcher.wake(), stop: () => stopRequests.wake(), log: () => hub.wakeTails() },
  });
  tellOthers = (what) => wakes.tell(what);
  wakeDispatcher = () => dispatcher.wake();
  const recovery = new Recovery({ db, clock, hub, telemetry, wakeDispatcher, deadHolders });
  const expiry = new Expiry({ db, clock, hub, telemetry });
  const evictions = new SessionEvictions({ db, fleet, leases, places, onError });
  const models: Models = openModels({
    ...{ db, clock, telemetry, config, dataDir, fleet },
    configDir: provisionEnv.configDir,
    here: () => supervisor.candidates(),
    drain: (poolId) => pools.drain(poolId, DEFAULT_DRAIN_DEADLINE_MS),
  });
  const nodes = { nodeId, membership, elsewhere, fleet, modelFor: models.forReload };
  const rateLimits = new RateLimits(clock, config.pools);
  const house = { db, clock, dispatcher, supervisor, leases, gpus, rateLimits, events: poolEvents, telemetry };
  const pools: Pools = new Pools({ ...house, ...nodes });

  scope.defer('membership', () => membership.stop());
  await membership.start();
  await elsewhere.look();
  await recovery.sweep();
  outbox.start();
  scope.defer('outbox', () => outbox.stop());
  scope.defer('vram peaks', () => vram.settled());
  scope.defer('engines', () => supervisor.stop());
  options.onKillable(() => supervisor.kill());
  await models.start(scope);
  await provisioning.start();
  await supervisor.start();
  // Before all that has to be stopped: it reads, and may fail.
  await servedElsewhere.start();
  scope.defer('services of other nodes', () => servedElsewhere.stop());
  quotes.start();
  leases.start();
  scope.defer('leases', () => leases.stop());
  recovery.start();
  scope.defer('stream recorder', () => recorder.stop());
  scope.defer('quote grades', () => quotes.stop());
  hub.start();
  dispatcher.start();
  elsewhere.start();
  scope.defer('other nodes', () => elsewhere.stop());
  wakes.start();
  scope.defer('wakes', () => wakes.stop());
  stopRequests.start();
  scope.defer('stop requests', () => stopRequests.stop());
  scope.defer('dispatcher', () => dispatcher.stop());
  scope.defer('recovery', () => recovery.stop());
  expiry.start();
  scope.defer('expiry', () => expiry.stop());
  evictions.start();
  scope.defer('session evictions', () => evictions.stop());
  const stranded = new Stranded({ db, clock, hub, fleet, dispatcher, telemetry });
  stranded.start();
  scope.defer('stranded tasks', () => stranded.stop());
  scope.defer('operations', () => pools.stop());
  const firstTasks = new FirstTasks({ db, pools: () => supervisor.pools(), onError });
  firstTasks.start();
  scope.defer('first tasks', () => firstTasks.stop());
  models.retirement.start();
  scope.defer('retirement of models', () => models.retirement.stop());
  scope.defer('stream readers', () => hub.stop());
  await presence.start();
  const cancellation = new Cancellation({
    db,
    clock,
    dispatcher,
    hub,
    telemetry,
    tellHolder: () => tellOthers('stop'),
  });
  const disconnects = new Disconnects({ db, cancellation, membership, presence, onError });
  disconnects.start();
  const stopReaders = async () => {
    await disconnects.stop();
    await presence.stop();
  };
  scope.defer('task readers', stopReaders);
  const replicaLogs = new ReplicaLogs({
    db,
    clock,
    nodeId: dataDir.nodeId,
    logFile: (replicaId) => engineLogFile(dataDir.logsDir, replicaId),
  });
  scope.defer('log readers', () => replicaLogs.stop());
  const admission = new Admission({
    db,
    fleet,
    dispatcher,
    hub,
    telemetry,
    places,
    rateLimits,
    sessions: sessionRules(config),
    priceMicros: pricesMicros(config),
    catalog: models.view,
  });
  const verification = new Verification({ db, admission, telemetry });
  verification.start();
  scope.defer('verification', () => verification.stop());
  if (config.retention.enabled) {
    const bounds = retentionBounds(config.retention);
    const everyMs = config.retention.every_ms;
    const retention = new Retention({ db, clock, telemetry, everyMs, bounds, tasksInUse: () => hub.readTasks() });
    retention.start();
    scope.defer('retention', () => retention.stop());
  }
  const services: Services = {
    admission,
    verification,
    cancellation,
    streams: hub,
    tasks: new Tasks(db),
    pools,
    poolEvents,
    provisioning,
    quotes,
    gpus,
    host,
    replicaLogs,
    sessions: new Sessions(db, places, fleet, evictions),
    budgets: new Budgets({ db, telemetry, sessions: sessionRules(config) }),
    artifacts: new Artifacts(db),
    catalog: models.catalog,
    catalogView: models.view,
    staging: models.staging,
  };
  return { services, supervisor, stopReaders };
}

function assumedServiceTimes({ pools }: Config): (poolId: string) => number {
  const assumed = new Map(pools.map(({ id, queue }) => [id, queue.assumed_service_ms]));
  return (poolId) => assumed.get(poolId) ?? 0;
}

/** Where relative paths of a configuration file start. */
export function configDirOf(file: string | null): string {
  return file === null ? process.cwd() : dirname(resolve(file));
}
