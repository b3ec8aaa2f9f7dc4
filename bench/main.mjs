/**
 * `npm run bench [-- --quick] [-- --only NAME,…] [-- --profile DIR]`: measures the built program against the simplest
 * thing that does the same job, in the same run on the same machine, and prints one table with the aim beside each
 * number. It judges nothing: the exit code is 0 whatever the numbers, and 1 when something could not be measured.
 */
import { cpus } from 'node:os';
import { resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { measureAdmissions } from './admissions.mjs';
import { measureDequeue } from './dequeue.mjs';
import { measureFirstToken } from './firstToken.mjs';
import { measureLifecycle } from './lifecycle.mjs';
import { measureResuming } from './resuming.mjs';
import { Scope } from './scope.mjs';
import { table } from './stats.mjs';
import { measureStreams } from './streams.mjs';
import { measureSubscribers } from './subscribers.mjs';
import { measureThroughput } from './throughput.mjs';
import { startPostgres } from './world.mjs';

const MEASUREMENTS = {
  throughput: measureThroughput,
  firstToken: measureFirstToken,
  admissions: measureAdmissions,
  lifecycle: measureLifecycle,
  dequeue: measureDequeue,
  streams: measureStreams,
  resuming: measureResuming,
  subscribers: measureSubscribers,
};

function readOptions() {
  const { values } = parseArgs({
    options: { quick: { type: 'boolean', default: false }, only: { type: 'string' }, profile: { type: 'string' } },
  });
  const names = values.only?.split(',') ?? Object.keys(MEASUREMENTS);
  const unknown = names.find((name) => !Object.hasOwn(MEASUREMENTS, name));
  if (unknown !== undefined) throw new Error(`--only knows ${Object.keys(MEASUREMENTS).join(', ')}; not ${unknown}`);
  // The server's CPU profile is written when it stops; it slows what is measured.
  const nodeArgs = values.profile === undefined ? [] : ['--cpu-prof', '--cpu-prof-dir', resolve(values.profile)];
  return { quick: values.quick, names, nodeArgs };
}

function seconds(sinceMs) {
  return ((performance.now() - sinceMs) / 1000).toFixed(1);
}

async function measureAll({ quick, names, nodeArgs }, scope) {
  const postgres = await startPostgres(scope);
  const rows = [];
  let failed = false;
  for (const name of names) {
    const startedMs = performance.now();
    const say = (text) => process.stdout.write(`  ${name}: ${text}\n`);
    const own = new Scope();
    scope.defer(name, () => own.close());
    try {
      rows.push(...(await MEASUREMENTS[name]({ scope: own, postgres, quick, nodeArgs, say })));
      say(`done in ${seconds(startedMs)} s`);
    } catch (error) {
      failed = true;
      process.stderr.write(`  ${name}: could not be measured: ${error.stack ?? error}\n`);
    } finally {
      await own.close();
    }
  }
  return { rows, failed };
}

const startedMs = performance.now();
const scope = new Scope();
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => scope.close().finally(() => process.exit(130)));
try {
  const options = readOptions();
  process.stdout.write(
    `Node ${process.version}, ${cpus().length} cores, ${cpus()[0]?.model}${options.quick ? ', quick' : ''}\n`,
  );
  const { rows, failed } = await measureAll(options, scope);
  process.stdout.write(`\n${table(rows)}\n\nThe whole took ${seconds(startedMs)} s.\n`);
  process.exitCode = failed ? 1 : 0;
} catch (error) {
  process.stderr.write(`${error.stack ?? error}\n`);
  process.exitCode = 1;
} finally {
  await scope.close();
}
