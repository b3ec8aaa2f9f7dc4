/** The command line. Each command loads only what it needs, so that `run` and `engine-sim` start fast. */
import { ConfigError } from '../config/error.js';
import { StartupError } from '../host/startupError.js';

const USAGE = `llama-orch: a control plane for LLM inference engines

  llama-orch up [--config FILE]       start everything: PostgreSQL, a demo pool (or FILE), GraphQL, REST
  llama-orch serve --config FILE      the same without a database or demo of its own (DATABASE_URL)
  llama-orch run [--pool P] [--seed N] [--max-tokens N] [--url URL] "prompt"
                                      submit a task and stream its tokens; Ctrl-C cancels it
  llama-orch plan [--config FILE] [--pool ID] [--json]
                                      what would be done to have the engines here; does none of it
  llama-orch migrate                  bring the database behind DATABASE_URL up to date
  llama-orch engine-sim [options]     one simulated inference engine (engine-sim --help)
  llama-orch --version

Without a command: up. Environment: ORCHD_ADDR, LLAMA_ORCH_HOME, DATABASE_URL, AUTH_TOKEN.
`;

async function dispatch(command: string, args: readonly string[]): Promise<number> {
  switch (command) {
    case 'up':
    case 'serve':
      return (await import('./up.js')).runServer(command, args);
    case 'run':
      return (await import('../cli/run.js')).runTask(args, process.env);
    case 'plan':
      return (await import('../cli/plan.js')).showPlan(args, process.env);
    case 'migrate':
      return (await import('./up.js')).runMigrate();
    case 'engine-sim':
      await (await import('../engines/sim/cli.js')).runEngineSim([...args]);
      return 0;
    case '--version':
      process.stdout.write(`${(await import('./version.js')).VERSION}\n`);
      return 0;
    case 'help':
    case '--help':
    case '-h':
      process.stdout.write(USAGE);
      return 0;
    default:
      process.stderr.write(`There is no command "${command}".\n\n${USAGE}`);
      return 2;
  }
}

function explain(error: unknown): string {
  if (error instanceof StartupError) return `${error.message}\n  Fix: ${error.fix}\n`;
  if (error instanceof ConfigError) return `${error.message}\n`;
  if (error instanceof Error && 'code' in error && String(error.code).startsWith('ERR_PARSE_ARGS'))
    return `${error.message}\n\n${USAGE}`;
  return `${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`;
}

const [first, ...rest] = process.argv.slice(2);
const given = first !== undefined && (!first.startsWith('-') || ['--version', '--help', '-h'].includes(first));
try {
  process.exitCode = await dispatch(given ? first : 'up', given ? rest : process.argv.slice(2));
} catch (error) {
  process.stderr.write(explain(error));
  process.exitCode = 1;
}
