/** `llama-orch plan`: what a start would do to have the engines here. Reads; opens no socket and starts nothing. */
import { realpathSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { demoConfig } from '../config/demo.js';
import { readEnvironment } from '../config/environment.js';
import { loadConfig } from '../config/load.js';
import { commandOf, type ProvisionPlan } from '../core/provision/plan.js';
import { dryRun } from '../services/provisioning/dryRun.js';

interface PoolPlan {
  readonly pool: string;
  readonly plan: ProvisionPlan;
}

/** The data directory as a start would name it; it need not be there. */
function realHome(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return resolve(path);
  }
}

/** Of the shell: what is no plain word is quoted, so that a line can be pasted. */
function quoted(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

function describe({ pool, plan }: PoolPlan): string[] {
  const lines = [`${pool}: ${plan.engine}, mode ${plan.mode}${plan.buildRef === '' ? '' : `, from ${plan.buildRef}`}`];
  if (plan.steps.length === 0) lines.push('  nothing to do');
  for (const [at, step] of plan.steps.entries()) {
    lines.push(`  ${at + 1}. ${step.name}: ${step.summary}`);
    const command = commandOf(step);
    if (command !== null) lines.push(`     $ ${command.map(quoted).join(' ')}`);
  }
  for (const { code, message, fix } of plan.obstacles)
    lines.push(`  ! ${code}: ${message}.${fix === null ? '' : ` Fix: ${fix}`}`);
  return lines;
}

function asJson({ pool, plan }: PoolPlan): object {
  const { engine, mode, buildRef, steps, obstacles } = plan;
  const shown = steps.map((step) => ({ name: step.name, summary: step.summary, command: commandOf(step) }));
  return { pool, engine, mode, buildRef, steps: shown, obstacles };
}

/** @returns the exit code: 0 every plan can be carried out, 1 something stands in the way, 2 wrong usage. */
export async function showPlan(args: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const options = { config: { type: 'string' }, pool: { type: 'string' }, json: { type: 'boolean' } } as const;
  const { values } = parseArgs({ args: [...args], options });
  const config = values.config === undefined ? demoConfig() : loadConfig(values.config);
  const pools = config.pools.filter(({ id }) => values.pool === undefined || id === values.pool);
  if (pools.length === 0) {
    process.stderr.write(`There is no pool "${values.pool}".\n`);
    return 2;
  }
  const environment = {
    homeDir: realHome(readEnvironment(env).homeDir),
    configDir: values.config === undefined ? process.cwd() : dirname(resolve(values.config)),
    allowHosts: config.network.allow_hosts,
    simulatedGpus: config.gpu.mode === 'simulated',
    searchPath: env.PATH ?? '',
  };
  const plans: PoolPlan[] = [];
  for (const pool of pools) plans.push({ pool: pool.id, plan: await dryRun(pool, environment) });
  const text = values.json === true ? JSON.stringify(plans.map(asJson), null, 2) : plans.flatMap(describe).join('\n');
  process.stdout.write(`${text}\n`);
  return plans.some(({ plan }) => plan.obstacles.length > 0) ? 1 : 0;
}
