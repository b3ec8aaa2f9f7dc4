/**
 * Why engines were lost: one record for each end that nobody asked for, with what has changed since the last start of the
 * replica that went well. Records wait in memory while the database is away, bounded; the engine's owner never waits.
 */
import { randomUUID } from 'node:crypto';
import type { Engine } from '../../core/errors.js';
import { flagChanges } from '../../core/flags.js';
import type { Reason } from '../../core/pool.js';
import { redact } from '../../engines/redact.js';
import { BoundedQueue, showable } from '../../host/logLines.js';
import type { Clock } from '../../runtime/clock.js';
import {
  type CrashRow,
  insertCrash,
  pruneCrashes,
  readGoodLaunchArgs,
  writeGoodLaunchArgs,
} from '../../store/crashes.js';
import type { Database } from '../../store/database.js';
import type { Telemetry } from '../../telemetry/events.js';
import type { Outbox } from '../outbox.js';
import type { PoolEvents } from '../poolEvents.js';

/** What is known of an engine whose end nobody asked for. */
export interface CrashFacts {
  readonly modelRef: string;
  readonly engineVersion: string | null;
  /** Null: we ended it, because it failed a gate or was silent. Code and signal null: its parent alone was told. */
  readonly exit: { readonly code: number | null; readonly signal: string | null } | null;
  /** Its code is the class of the fault. */
  readonly reason: Reason;
  /** Oldest first. */
  readonly lastLines: readonly string[];
  /** Secrets masked; null: somebody else started it. */
  readonly launchArgs: readonly string[] | null;
  readonly ranForMs: number;
  /** Null: it never became ready. */
  readonly readyForMs: number | null;
}

export interface CrashedReplica {
  readonly id: string;
  readonly poolId: string;
  readonly engine: Engine;
}

export interface CrashesDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly events: PoolEvents;
  readonly telemetry: Telemetry;
  readonly outbox: Outbox;
}

const KEPT_PER_REPLICA = 20;
const MAX_LINES = 40;
const MAX_LINES_BYTES = 16 * 1024;
const MAX_LINE_BYTES = 2 * 1024;
const MAX_TEXT_BYTES = 2 * 1024;
const MAX_ARGS = 256;
const MAX_ARG_BYTES = 1024;
const MAX_FLAG_CHANGES = 64;
const CUT = ' …';

/** What our launches give another value at every start. */
export const OTHER_AT_EVERY_START: ReadonlySet<string> = new Set([
  '--port',
  '--http-port',
  '--metrics-port',
  '--master-port',
  '--prometheus-port',
  '--shard-uds-path',
]);

export class Crashes {
  readonly #deps: CrashesDeps;

  constructor(deps: CrashesDeps) {
    this.#deps = deps;
  }

  /** Never throws and never waits. */
  record(replica: CrashedReplica, facts: CrashFacts): void {
    const crash = describe(replica, facts, this.#deps.clock.nowMs());
    const { exitCode, signal, fault, message } = crash;
    this.#deps.telemetry.log.warn(
      {
        ...{ replica_id: replica.id, pool_id: replica.poolId, engine: replica.engine, crash_id: crash.id },
        ...{ fault, exit_code: exitCode, signal, human: `An engine was lost: ${message}` },
      },
      'engine crashed',
    );
    this.#deps.outbox.push(`crash record of ${replica.id}`, () => this.#write(crash));
  }

  /** A start became ready with these arguments (null: somebody else's): what the next crash is compared with. */
  ready(replicaId: string, launchArgs: readonly string[] | null): void {
    if (launchArgs === null) return;
    const args = shownArgs(launchArgs);
    this.#deps.outbox.push(`arguments of ${replicaId}`, async () => {
      const written = await writeGoodLaunchArgs(this.#deps.db, replicaId, args);
      if (!written) throw new Error(`replica ${replicaId} has no row`);
    });
  }

  async #write(crash: CrashRow): Promise<void> {
    const { db, events } = this.#deps;
    const { id, poolId, replicaId, launchArgs, fault, message, exitCode, signal } = crash;
    const before = await readGoodLaunchArgs(db, replicaId);
    const changes =
      before === null || launchArgs === null
        ? []
        : flagChanges(before, launchArgs, OTHER_AT_EVERY_START).slice(0, MAX_FLAG_CHANGES);
    await insertCrash(db, { ...crash, flagChanges: changes });
    await pruneCrashes(db, replicaId, KEPT_PER_REPLICA);
    const detail = { crash: id, fault, exit_code: exitCode, signal, flag_changes: changes };
    await events.append({ id, poolId, replicaId, kind: 'replica_crashed', message, detail });
  }
}

/** The facts within their bounds, fit to be shown and stored. */
function describe(replica: CrashedReplica, facts: CrashFacts, atMs: number): CrashRow {
  const { modelRef, engineVersion, exit, reason, lastLines, launchArgs, ranForMs, readyForMs } = facts;
  return {
    id: randomUUID(),
    poolId: replica.poolId,
    replicaId: replica.id,
    atMs,
    modelRef: shown(modelRef),
    engineVersion: engineVersion === null ? null : shown(engineVersion),
    exitCode: exit?.code ?? null,
    signal: exit?.signal ?? null,
    fault: shown(reason.code),
    message: shown(reason.message),
    fix: reason.fix === null ? null : shown(reason.fix),
    lastLines: newest(lastLines),
    launchArgs: launchArgs === null ? null : shownArgs(launchArgs),
    flagChanges: [],
    ranForMs,
    readyForMs,
  };
}

/** The end of the log: there an engine says why it goes. */
function newest(lines: readonly string[]): readonly string[] {
  const kept = new BoundedQueue<{ readonly text: string; readonly sizeBytes: number }>(MAX_LINES, MAX_LINES_BYTES);
  for (const line of lines.slice(-MAX_LINES)) {
    const text = shown(line, MAX_LINE_BYTES);
    kept.push({ text, sizeBytes: Buffer.byteLength(text) });
  }
  return kept.newest(MAX_LINES).map(({ text }) => text);
}

function shownArgs(args: readonly string[]): readonly string[] {
  return args.slice(0, MAX_ARGS).map((arg) => shown(arg, MAX_ARG_BYTES));
}

/** Without secrets, terminal escapes, control characters and halves of characters; cut at a whole one. */
function shown(text: string, maxBytes = MAX_TEXT_BYTES): string {
  const bytes = Buffer.from(redact(showable(text)));
  if (bytes.length <= maxBytes) return bytes.toString();
  const room = maxBytes - Buffer.byteLength(CUT);
  return new TextDecoder().decode(bytes.subarray(0, room), { stream: true }) + CUT;
}
