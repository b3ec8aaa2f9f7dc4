/** What befalls engines: signals and faults, given to the process itself. */
import { expect } from 'vitest';
import { busySlotsOf, engineOf, servingPid, setFault } from '../engines.js';
import { eventually } from '../eventually.js';
import { step } from '../step.js';

/** Over once the control plane has seen it. */
step(/^the engine of "([^"]+)" is killed$/, async (scenario, replica: string) => {
  const { pid } = await engineOf(scenario, replica);
  process.kill(pid, 'SIGKILL');
  await eventually(() => servingPid(scenario, replica), { interval: 20 }).not.toBe(pid);
});

step(/^the engine of "([^"]+)" gets the fault "([^"]+)"$/, async (scenario, replica: string, fault: string) => {
  await setFault(await engineOf(scenario, replica), fault);
});

/** One look, past the control plane: for what must hold by then. */
step(/^the engine of "([^"]+)" decodes nothing$/, async (scenario, replica: string) => {
  expect(await busySlotsOf(await engineOf(scenario, replica))).toBe(0);
});
