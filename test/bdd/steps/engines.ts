/** What befalls engines: signals and faults, given to the process itself, of which the database knows number and port. */
import { expect } from 'vitest';
import { post } from '../../support/rest.js';
import type { Scenario } from '../scenario.js';
import { step } from '../step.js';

interface EngineRow {
  readonly pid: number | null;
  readonly endpoint: string | null;
}

async function engineOf(scenario: Scenario, replica: string): Promise<{ pid: number; endpoint: string }> {
  const text = `SELECT pid, endpoint FROM replicas WHERE id = $1 AND state = 'READY'`;
  const look = async () => (await scenario.world.database.query<EngineRow>(text, [replica]))[0];
  await expect.poll(look).toMatchObject({ pid: expect.any(Number), endpoint: expect.any(String) });
  const { pid, endpoint } = (await look()) ?? {};
  if (pid == null || endpoint == null) throw new Error(`${replica} has no engine now`);
  return { pid, endpoint };
}

step(/^the engine of "([^"]+)" is killed$/, async (scenario, replica: string) => {
  process.kill((await engineOf(scenario, replica)).pid, 'SIGKILL');
});

step(/^the engine of "([^"]+)" gets the fault "([^"]+)"$/, async (scenario, replica: string, fault: string) => {
  const { endpoint } = await engineOf(scenario, replica);
  const answer = await post(endpoint, '/sim/control', { fault: [fault] });
  expect(answer.status, await answer.text()).toBe(200);
});

/** Asked past the control plane. */
step(/^the engine of "([^"]+)" decodes nothing any more$/, async (scenario, replica: string) => {
  const { endpoint } = await engineOf(scenario, replica);
  const control = async () => (await (await fetch(`${endpoint}/sim/control`)).json()) as Record<string, unknown>;
  await expect.poll(control).toMatchObject({ busySlots: 0 });
});
