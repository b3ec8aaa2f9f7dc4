/** Pools, replicas, tasks and sessions: what they come to show, and what is told of them. */
import { eventually } from '../eventually.js';
import { matches, mismatches } from '../matching.js';
import type { Scenario } from '../scenario.js';
import { eventsOf, showPool, showReplica, showSession, showTask } from '../shows.js';
import { type StepData, step } from '../step.js';

/** Waits until all rows hold: what is shown follows what happens by a moment. */
async function comesToShow(read: () => Promise<unknown>, table: StepData, scenario: Scenario): Promise<void> {
  const rows = scenario.rows(table);
  await eventually(async () => mismatches(await read(), rows), { interval: 100 }).toEqual([]);
}

step(/^the pool "([^"]+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showPool(scenario.doors, name), table, scenario),
);

step(/^the replica "([^"]+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showReplica(scenario.doors, name), table, scenario),
);

step(/^the task "(\w+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showTask(scenario.doors, scenario.taskId(name)), table, scenario),
);

step(/^the session "(\w+)" shows:$/, (scenario, name: string, table: StepData) =>
  comesToShow(() => showSession(scenario.doors, scenario.taskId(`session ${name}`)), table, scenario),
);

step(/^the session "(\w+)" is gone$/, (scenario, name: string) =>
  eventually(() => showSession(scenario.doors, scenario.taskId(`session ${name}`))).toBeNull(),
);

/** In this order; others may stand between them. @param since cursor of an event; what it told before counts for nothing. */
async function hasTold(scenario: Scenario, pool: string, since: string | undefined, table: StepData): Promise<void> {
  const missing = async () => {
    const rest = await eventsOf(scenario.doors, pool, since);
    return table.raw().filter(([kind = '', message = 'any']) => {
      const place = rest.findIndex((event) => event.kind === kind && matches(event.message, message));
      if (place >= 0) rest.splice(0, place + 1);
      return place < 0;
    });
  };
  await eventually(missing, { interval: 100 }).toEqual([]);
}

/** Since the scenario came to it. */
step(/^the pool "([^"]+)" has told:$/, (scenario, pool: string, table: StepData) =>
  hasTold(scenario, pool, scenario.lastEventBefore(pool), table),
);

/** Whoever was there; for what a start tells, which scenarios after the first come too late for. */
step(/^the pool "([^"]+)" has told since it was made:$/, (scenario, pool: string, table: StepData) =>
  hasTold(scenario, pool, undefined, table),
);
