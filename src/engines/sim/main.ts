/** `node dist/engines/sim/main.js …`: the simulator alone, without the rest of the program. */
import { runEngineSim } from './cli.js';

try {
  await runEngineSim(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`engine-sim: ${error instanceof Error ? error.message : String(error)}\n`);
  process.exitCode = 1;
}
