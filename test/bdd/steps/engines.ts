/** What befalls engines: signals and faults, given to the process itself. */
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

/** Asked past the control plane. */
step(/^the engine of "([^"]+)" decodes nothing any more$/, async (scenario, replica: string) => {
  const engine = await engineOf(scenario, replica);
  await eventually(() => busySlotsOf(engine)).toBe(0);
});
