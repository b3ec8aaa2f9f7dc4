/** What processes take while nothing is asked of them, seen from outside, and what engines still have at work. */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs';
import type { Asked } from './invariantFacts.js';
import type { Floor } from './invariants.js';
import { type Sample, scrape } from './metrics.js';

const MIB_KIB = 1024;
const LISTENS = '0A';

/** The most connections that the pools of a control plane open, of which a floor has some. */
const POOLED = 16;

/** A control plane of a test; its process and its address change with each start. */
export interface WatchedPlane {
  readonly what: string;
  readonly pid: () => number;
  readonly url: () => string;
  /** All that it has written; null where that is not kept. */
  readonly output: () => string;
  /** When this life of it began. */
  readonly sinceMs: () => number;
}

/** What a control plane may take beyond its floor, each for a reason. */
export const PLANE_SLACK: Floor = {
  // A pool of connections keeps what a load has opened for 10 s.
  'database sockets': POOLED,
  // Idle ones to engines stay for some seconds, one for each stream that a slot had.
  'engine sockets': 8,
  // One poll of each loop may be under way.
  timers: 8,
  'taken connections': 1,
  // The libraries' own: a worker of V8 or of the thread pool comes with its first use.
  threads: 4,
  'other files': 2,
  // V8 gives memory back late; a load of thousands of frames is in it until then.
  'MiB resident': 64,
};

export const ENGINE_SLACK: Floor = { sockets: 8, 'other files': 2 };
export const DATABASE_SLACK: Floor = { connections: POOLED };

/**
 * Of a process: files by kind, threads, memory, what its own page says; sockets that this process holds the other end of
 * are ours to close, and not counted.
 */
export async function planeFloor(plane: WatchedPlane, enginePids: readonly number[]): Promise<Floor> {
  const pid = plane.pid();
  const { pipes, sockets, others } = openFiles(pid);
  const connections = connectionsOf(pid, sockets);
  const owners = new Set(enginePids.flatMap((engine) => openFiles(engine).sockets));
  const ours = new Set(openFiles(process.pid).sockets);
  const theirs = connections.filter(({ peer, listens }) => !listens && (peer === null || !ours.has(peer)));
  const told = await scrape(plane.url());
  const one = (name: string, where: (sample: Sample) => boolean = () => true) =>
    (told.get(name) ?? []).filter(where).reduce((sum, { value }) => sum + value, 0);
  return {
    pipes,
    'other files': others,
    'listening sockets': connections.filter(({ listens }) => listens).length,
    'engine sockets': theirs.filter(({ peer }) => peer !== null && owners.has(peer)).length,
    'half-closed sockets': theirs.filter(({ peer }) => peer === null).length,
    'taken connections': one('database_connections', ({ labels }) => labels.state === 'taken'),
    timers: one('nodejs_active_resources', ({ labels }) => labels.type === 'Timeout'),
    'stream readers': one('stream_readers'),
    leases: one('active_leases'),
    'listener warnings': plane.output().split('MaxListenersExceededWarning').length - 1,
    // The process of the tests asks the database too, and keeps what they have seen.
    ...(pid !== process.pid && {
      'database sockets': theirs.filter(({ peer }) => peer !== null && !owners.has(peer)).length,
      threads: status(pid, 'Threads'),
      'MiB resident': residentMib(pid),
    }),
  };
}

/** The most that any ready engine has of each. */
export async function engineFloor(database: Asked): Promise<Floor> {
  const engines = await database.query<{ endpoint: string; pid: number }>(
    "SELECT endpoint, pid FROM replicas WHERE state = 'READY' AND endpoint IS NOT NULL AND pid IS NOT NULL",
  );
  const floors = await Promise.all(engines.map(({ endpoint, pid }) => oneEngine(endpoint, pid)));
  return Object.fromEntries(
    ENGINE_NAMES.map((name) => [name, Math.max(0, ...floors.map((floor) => floor?.[name] ?? 0))]),
  );
}

/** What all control planes on it have open, and have left open: a transaction that nobody ends. */
export async function databaseFloor(database: Asked): Promise<Floor> {
  const [row] = await database.query<{ connections: number; left: number }>(
    `SELECT count(*)::int AS connections,
       count(*) FILTER (WHERE state LIKE 'idle in transaction%' AND state_change < now() - interval '1 s')::int AS left
     FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'llama-orch%'`,
  );
  return { connections: row?.connections ?? 0, 'open transactions': row?.left ?? 0 };
}

const ENGINE_NAMES = ['busy slots', 'waiting calls', 'open completions', 'sockets', 'pipes', 'other files'] as const;

interface Inspection {
  readonly busySlots: number;
  readonly deferred: number;
  readonly completions: { readonly started: number; readonly finished: number; readonly abandoned: number };
}

/** null: it has just gone. */
async function oneEngine(endpoint: string, pid: number): Promise<Record<string, number> | null> {
  const answer = await fetch(`${endpoint}/sim/control`, { signal: AbortSignal.timeout(2_000) }).catch(() => null);
  if (answer?.ok !== true) return null;
  const { busySlots, deferred, completions } = (await answer.json()) as Inspection;
  const { pipes, sockets, others } = openFiles(pid);
  const ours = new Set(openFiles(process.pid).sockets);
  const open = connectionsOf(pid, sockets).filter(({ peer }) => peer === null || !ours.has(peer));
  return {
    'busy slots': busySlots,
    'waiting calls': deferred,
    'open completions': completions.started - completions.finished - completions.abandoned,
    sockets: open.length,
    pipes,
    'other files': others,
  };
}

interface OpenFiles {
  readonly pipes: number;
  /** Their inodes. */
  readonly sockets: readonly string[];
  readonly others: number;
}

function openFiles(pid: number): OpenFiles {
  let targets: string[];
  try {
    targets = readdirSync(`/proc/${pid}/fd`).map((fd) => linkOf(pid, fd));
  } catch {
    targets = [];
  }
  const sockets = targets.flatMap((target) => /^socket:\[(\d+)\]$/.exec(target)?.[1] ?? []);
  const pipes = targets.filter((target) => target.startsWith('pipe:')).length;
  return { pipes, sockets, others: targets.filter((target) => target !== '').length - sockets.length - pipes };
}

/** '': closed meanwhile, as is the one that lists them. */
function linkOf(pid: number, fd: string): string {
  try {
    return readlinkSync(`/proc/${pid}/fd/${fd}`);
  } catch {
    return '';
  }
}

interface Connection {
  readonly listens: boolean;
  /** The socket at its other end; null where nobody of this machine has it open. */
  readonly peer: string | null;
}

/** Of the TCP sockets among these. */
function connectionsOf(pid: number, inodes: readonly string[]): Connection[] {
  const rows = ['tcp', 'tcp6'].flatMap((table) => tableOf(pid, table));
  const byEnds = new Map(rows.map(({ local, remote, inode }) => [`${local} ${remote}`, inode]));
  const wanted = new Set(inodes);
  return rows
    .filter(({ inode }) => wanted.has(inode))
    .map(({ local, remote, state }) => {
      const peer = byEnds.get(`${remote} ${local}`) ?? '0';
      return { listens: state === LISTENS, peer: peer === '0' ? null : peer };
    });
}

function tableOf(pid: number, table: string) {
  let text = '';
  try {
    text = readFileSync(`/proc/${pid}/net/${table}`, 'utf8');
  } catch {
    return []; // it is gone, or has no IPv6
  }
  return text
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => {
      const [, local = '', remote = '', state = '', , , , , , inode = ''] = line.trim().split(/\s+/);
      return { local, remote, state, inode };
    });
}

function residentMib(pid: number): number {
  return Math.round(status(pid, 'VmRSS') / MIB_KIB);
}

function status(pid: number, name: string): number {
  try {
    const text = readFileSync(`/proc/${pid}/status`, 'utf8');
    return Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0);
  } catch {
    return 0;
  }
}
