/** What befalls engines: signals and faults, given to the process itself, of which the database knows number and port. */
import { expect } from 'vitest';
import { post } from '../../support/rest.js';
import type { Scenario } from '../scenario.js';
import { step } from '../step.js';

interface Engine {
  readonly pid: number;
  readonly endpoint: string;
}

/** The one that serves; undefined while none does. */
async function findEngine(scenario: Scenario, replica: string): Promise<Engine | undefined> {
  const text = `SELECT pid, endpoint FROM replicas WHERE id = $1 AND state = 'READY' AND endpoint IS NOT NULL`;
  return (await scenario.world.database.query<Engine>(text, [replica]))[0];
}

async function engineOf(scenario: Scenario, replica: string): Promise<Engine> {
  const found: Engine[] = [];
  const look = async () =>
    found.push(...[await findEngine(scenario, replica)].filter((engine) => engine !== undefined));
  await expect.poll(look, { message: `${replica} has an engine that serves` }).toBeGreaterThan(0);
  const [engine] = found;
  if (engine === undefined) throw new Error(`${replica} has no engine`);
  return engine;
}

/** Over once the control plane has seen it. */
step(/^the engine of "([^"]+)" is killed$/, async (scenario, replica: string) => {
  const { pid } = await engineOf(scenario, replica);
  process.kill(pid, 'SIGKILL');
  await expect.poll(async () => (await findEngine(scenario, replica))?.pid, { interval: 20 }).not.toBe(pid);
});

step(/^the engine of "([^"]+)" gets the fault "([^"]+)"$/, async (scenario, replica: string, fault: string) => {
  const { endpoint } = await engineOf(scenario, replica);
  const answer = await post(endpoint, '/sim/control', { fault: [fault] });
  expect(answer.status, await answer.text()).toBe(200);
});

/** One look, past the control plane: for what must hold by then. */
step(/^the engine of "([^"]+)" decodes nothing$/, async (scenario, replica: string) => {
  const { endpoint } = await engineOf(scenario, replica);
  const control = (await (await fetch(`${endpoint}/sim/control`)).json()) as Record<string, unknown>;
  expect(control).toMatchObject({ busySlots: 0 });
});
