// Holds the server against pacts of its clients: npm run pact:verify [-- FILE…]; without files, all of contracts/pacts.
// Starts a control plane of its own with simulated engines, and a PostgreSQL unless DATABASE_URL names an empty database.
// The states that a pact may name are in contracts/pacts/README.md. Exits 1 when a pact is not kept. Needs dist/.
import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { startProvider } from './pact/provider.mjs';
import { stateHandlers } from './pact/states.mjs';

// Before the library is read, which reports its use otherwise.
process.env.PACT_DO_NOT_TRACK = 'true';
const { Verifier } = await import('@pact-foundation/pact');

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const REQUEST_TIMEOUT_MS = 30_000;

function filesToVerify(given) {
  if (given.length > 0) return given.map((file) => resolve(file));
  const folder = join(root, 'contracts', 'pacts');
  return readdirSync(folder)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => join(folder, name));
}

function readPact(file) {
  const pact = JSON.parse(readFileSync(file, 'utf8'));
  if (!Array.isArray(pact.interactions)) throw new Error(`${file} is no pact: it has no interactions`);
  return { file, consumer: pact.consumer?.name ?? 'somebody', interactions: pact.interactions };
}

/** States that nobody here knows set nothing up; the interaction is tried all the same, and this says so. */
function unknownStates(pact, handlers) {
  const named = pact.interactions.flatMap(({ providerState, providerStates = [] }) => [
    ...(typeof providerState === 'string' ? [providerState] : []),
    ...providerStates.map(({ name }) => name),
  ]);
  return [...new Set(named)].filter((name) => !(name in handlers));
}

/** The verifier has printed each mismatch by then; its error is all of them as one line of JSON. */
function reasonOf({ message }) {
  try {
    const broken = JSON.parse(message).errors.map(({ interaction }) => `\n  ${interaction}`);
    return `, ${broken.length} of them:${broken.join('')}`;
  } catch {
    return `: ${message}`;
  }
}

/** Before an interaction nothing is left of the one before it, whether it names states or none. */
function cleanBetween(provider, handlers) {
  let clean = false;
  const prepare = async () => {
    if (!clean) await provider.reset();
    clean = true;
  };
  const setUp = (handler) => async (params) => {
    try {
      await prepare();
      return await handler(params);
    } catch (error) {
      clean = false;
      console.error(`  the state cannot be made: ${error.message}`);
      throw error;
    }
  };
  const requestFilter = async (request, _response, next) => {
    if (request.path.startsWith('/_pact')) return next();
    await prepare().then(() => next(), next);
    clean = false;
  };
  const stateHandlers = Object.fromEntries(Object.entries(handlers).map(([name, one]) => [name, setUp(one)]));
  return { stateHandlers, requestFilter };
}

async function verify(pact, provider) {
  const handlers = stateHandlers(provider);
  for (const name of unknownStates(pact, handlers)) console.log(`  note: no such state here: "${name}"`);
  const verifier = new Verifier({
    provider: 'llama-orch',
    providerBaseUrl: provider.url,
    pactUrls: [pact.file],
    ...cleanBetween(provider, handlers),
    timeout: REQUEST_TIMEOUT_MS,
    logLevel: process.env.PACT_LOG_LEVEL ?? 'error',
  });
  await verifier.verifyProvider();
}

const pacts = filesToVerify(process.argv.slice(2)).map(readPact);
const provider = await startProvider(pacts);
const results = [];
try {
  for (const pact of pacts) {
    console.log(`\n${pact.consumer} (${pact.file})`);
    const failure = await verify(pact, provider).then(
      () => null,
      (error) => error,
    );
    results.push({ pact, failure });
  }
} finally {
  await provider.close();
}
console.log('');
for (const { pact, failure } of results) {
  const outcome = failure === null ? 'kept' : `BROKEN${reasonOf(failure)}`;
  console.log(`${pact.consumer}: ${pact.interactions.length} interactions, ${outcome}`);
}
process.exit(results.every(({ failure }) => failure === null) ? 0 : 1);
