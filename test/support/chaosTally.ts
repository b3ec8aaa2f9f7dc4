/** The account of a chaos run, as text. */
import type { Struck } from './chaosBlows.js';
import type { Facts, ReplicaFacts, TaskFacts } from './chaosFacts.js';
import type { Flow } from './chaosFlow.js';
import type { ProcessWatch } from './chaosWatch.js';

const MIB = 1024 * 1024;

export interface RunFacts {
  readonly seed: number;
  readonly struck: readonly Struck[];
  readonly facts: Facts;
  readonly flow: Flow;
  readonly touches: ReadonlyMap<string, readonly Struck[]>;
  readonly watch: ProcessWatch;
  readonly lives: number;
  readonly restRssBytes: number;
  /** Replicas at rest, with their causes; all are once they are resumed. */
  readonly notReady: readonly ReplicaFacts[];
  readonly warnings: ReadonlyMap<string, number>;
  /** Before the first blow, after the last, and when all was at rest, ms. */
  readonly times: readonly number[];
}

export function tally(run: RunFacts): string {
  const { facts, flow, watch, struck, times } = run;
  const seconds = (from: number) => Math.round(((times[from + 1] ?? 0) - (times[from] ?? 0)) / 1000);
  const away = run.notReady.map(({ id, state, lastError }) => `${id} ${state} ${lastError?.code}`);
  const seams = [...facts.tasks.values()].reduce((sum, task) => sum + task.seams, 0);
  const returns = flow.asked.reduce((sum, { reader }) => sum + reader.returns, 0);
  return [
    `chaos, seed ${run.seed}: ${struck.length} blows in ${seconds(0)} s, at rest ${seconds(1)} s after the last`,
    '',
    ...blowLines(run),
    '',
    ...[true, false].map((strict) => {
      const tasks = [...facts.tasks.values()].filter((task) => task.strict === strict);
      return `${strict ? 'strict' : 'best-effort'} tasks: ${tasks.length} (${counted(tasks.map(outcomeOf))})`;
    }),
    `readers: ${flow.asked.length}, cut off and returned ${returns} times; seams ${seams}`,
    `submissions not acknowledged at once, by answer: ${listed(flow.refusals)}; given up ${flow.neverAcknowledged}`,
    `leases: ${facts.leases.length}, ended as ${counted(facts.leases.map(({ reason }) => reason ?? 'held'))}`,
    ...poolLines(run),
    `not ready at the end, and ready when resumed: ${away.join('; ') || 'none'}`,
    `control plane: ${run.lives} lives, resident ${mib(run.restRssBytes)} at rest, ${mib(watch.peakRssBytes)} at most`,
    `processes looked at ${watch.looks} times, the slowest look ${Math.round(watch.slowestLookMs)} ms; double starts ${watch.doubleStarts.size}`,
    `warnings of the control plane: ${listed(run.warnings)}`,
  ].join('\n');
}

/** Every blow as it was struck, to see what led to what. */
export function scheduleOf(struck: readonly Struck[]): string {
  const [first] = struck;
  return struck
    .map(({ blow, fromMs, untilMs, replicaId, poolId, taskId, note }) => {
      const at = ((fromMs - (first?.fromMs ?? 0)) / 1000).toFixed(1).padStart(6);
      const held = Number.isFinite(untilMs) ? `${Math.round(untilMs - fromMs)} ms` : 'held';
      const where = taskId ?? replicaId ?? poolId ?? '';
      const clock = new Date(fromMs).toISOString().slice(11, 23);
      return `${String(blow.number).padStart(3)} ${at} ${clock} ${blow.kind.name} ${where} ${held} ${note}`;
    })
    .join('\n');
}

function blowLines({ struck, facts, touches }: RunFacts): string[] {
  const names = [...new Set(struck.map(({ blow }) => blow.kind.name))].sort();
  return names.map((name) => {
    const those = struck.filter(({ blow }) => blow.kind.name === name);
    const met = [...facts.tasks.values()].filter(({ id }) =>
      (touches.get(id) ?? []).some(({ blow }) => blow.kind.name === name),
    );
    return `${String(those.length).padStart(4)} × ${name.padEnd(58)} tasks that met it: ${counted(met.map(outcomeOf)) || 'none'}`;
  });
}

function poolLines({ facts, watch }: RunFacts): string[] {
  const pools = [...new Set(facts.replicas.map(({ poolId }) => poolId))];
  return pools.map((pool) => {
    const changed = (state: string) =>
      facts.changes.find((row) => row.poolId === pool && row.state === state)?.count ?? 0;
    const crashes = facts.crashes.filter(({ poolId }) => poolId === pool);
    const starts = facts.replicas
      .filter(({ poolId }) => poolId === pool)
      .reduce((sum, { id }) => sum + (watch.marks.get(id)?.size ?? 0), 0);
    const recorded = crashes.map(({ fault, count }) => `${fault} ${count}`).join(', ') || 'none';
    return `pool ${pool}: ${starts} engine processes, backed off ${changed('BACKING_OFF')}, quarantined ${changed('QUARANTINED')}, ready ${changed('READY')}; crash records: ${recorded}`;
  });
}

function outcomeOf({ status, code, attempts }: TaskFacts): string {
  const moved = attempts > 1 && status === 'SUCCEEDED' ? ' after a move' : '';
  return `${status}${code === null ? '' : ` ${code}`}${moved}`;
}

function counted(words: readonly string[]): string {
  const counts = new Map<string, number>();
  for (const word of words) counts.set(word, (counts.get(word) ?? 0) + 1);
  return listed(counts);
}

function listed(counts: ReadonlyMap<string, number>): string {
  const entries = [...counts].sort((a, b) => b[1] - a[1]);
  return entries.map(([word, count]) => `${word} ${count}`).join(', ') || 'none';
}

function mib(bytes: number): string {
  return `${Math.round(bytes / MIB)} MiB`;
}
