/** What engines write to their logs: the last lines, and each new one as it comes. */
import { invalid, notFound, type Refusal, RefusalError, unavailable } from '../core/errors.js';
import { redact } from '../engines/redact.js';
import {
  type LogLine,
  type LogReader,
  LogReaders,
  MAX_FOLLOWERS,
  MAX_LAST_LINES,
  readLastLines,
} from '../host/logFollow.js';
import type { Clock } from '../runtime/clock.js';
import type { Database } from '../store/database.js';
import { listReplicas } from '../store/pools.js';

const RETRY_AFTER_MS = 5_000;
/** `redact` is made for messages and shows no more of one; a line of a log may be twice as long. */
const MASKED_CHARS = 4_096;
/** After these no secret goes on: not between a name and its value, nor (the "r") after "Bearer". */
const BETWEEN_SECRETS = /[,;&]|[^\s:="'r]\s/gi;

export type ReplicaLogLine = LogLine;

export interface ReplicaLogsDeps {
  readonly db: Database;
  readonly clock: Clock;
  readonly nodeId: string;
  /** Where the engine of a replica of this node writes. */
  readonly logFile: (replicaId: string) => string;
}

export class ReplicaLogs {
  readonly #deps: ReplicaLogsDeps;
  readonly #readers: LogReaders;

  constructor(deps: ReplicaLogsDeps) {
    this.#deps = deps;
    this.#readers = new LogReaders({ mask, nowMs: () => deps.clock.nowMs() });
  }

  /**
   * The last lines, oldest first; none for an engine that somebody else started.
   * @throws RefusalError when `lines` is out of range, the replica is another node's, or its log cannot be read.
   */
  async tail(
    replica: { readonly id: string; readonly nodeId: string | null },
    lines: number,
  ): Promise<readonly LogLine[]> {
    checkLines(lines, 1);
    const file = this.#fileOf(replica);
    try {
      return await readLastLines(file, lines, mask);
    } catch (error) {
      throw unreadable(replica.id, error);
    }
  }

  /**
   * The last `lines` lines, then each new one, across restarts of the engine. Always close the reader.
   * @throws RefusalError as `tail`, and when there is no such replica or too many follow its log already.
   */
  async open(replicaId: string, lines: number): Promise<LogReader> {
    checkLines(lines, 0);
    const replica = (await listReplicas(this.#deps.db)).find(({ id }) => id === replicaId);
    if (replica === undefined) throw new RefusalError(notFound('replica', `replica ${replicaId} not found`));
    const reader = this.#readers.follow(this.#fileOf(replica), lines);
    if (reader === null) throw new RefusalError(crowded(replicaId));
    return {
      next: async () => {
        try {
          return await reader.next();
        } catch (error) {
          throw unreadable(replicaId, error);
        }
      },
      close: () => reader.close(),
    };
  }

  /** Ends every reader; resolves when no log is open any more. */
  async stop(): Promise<void> {
    await this.#readers.stop();
  }

  #fileOf({ id, nodeId }: { readonly id: string; readonly nodeId: string | null }): string {
    if (nodeId === null || nodeId === this.#deps.nodeId) return this.#deps.logFile(id);
    const message = `the log of ${id} is on another node; ask the control plane that runs it`;
    throw new RefusalError({ ...unavailable('POOL_UNAVAILABLE', message, RETRY_AFTER_MS), field: 'replica' });
  }
}

/** Secrets by their shape; the key of the running engine is known to its owner alone. */
function mask(text: string): string {
  let shown = '';
  let rest = text;
  while (rest.length > MASKED_CHARS) {
    const last = [...rest.slice(0, MASKED_CHARS).matchAll(BETWEEN_SECRETS)].at(-1);
    const end = last === undefined ? MASKED_CHARS : last.index + last[0].length;
    shown += redact(rest.slice(0, end), []);
    rest = rest.slice(end);
  }
  return shown + redact(rest, []);
}

function checkLines(lines: number, min: number): void {
  if (Number.isInteger(lines) && lines >= min && lines <= MAX_LAST_LINES) return;
  throw new RefusalError(invalid('lines', `must be ${min} to ${MAX_LAST_LINES}, not ${lines}`));
}

function crowded(replicaId: string): Refusal {
  return {
    family: 'backpressure',
    code: 'ADMISSION_REJECT',
    message: `${MAX_FOLLOWERS} subscriptions follow the log of ${replicaId} already; end one, or ask for Replica.logs`,
    field: 'replica',
    retriable: true,
    retryAfterMs: RETRY_AFTER_MS,
  };
}

/** Names the cause by its code: the system's message has the path in it. */
function unreadable(replicaId: string, error: unknown): RefusalError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown cause';
  const message = `the log of ${replicaId} cannot be read (${code}); look at it on its node`;
  return new RefusalError({ family: 'failed', code: 'INTERNAL', message, retriable: false }, { cause: error });
}
