import { spawn } from 'node:child_process';
import { mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { compile } from '../../src/rest/validator.js';
import { operationFor } from '../support/contract.js';
import { createDatabase } from '../support/database.js';
import { endsWithFile } from '../support/lifetimes.js';
import { LONG } from '../support/long.js';

interface Interaction {
  readonly description: string;
  readonly request: { readonly method: string; readonly path: string; readonly body?: unknown };
  readonly response: { readonly status: number };
}

const FOLDER = 'contracts/pacts';
const DEADLINE_MS = 60_000;

async function pacts(): Promise<{ file: string; interactions: readonly Interaction[] }[]> {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.json')).map((name) => join(FOLDER, name));
  return Promise.all(files.map(async (file) => ({ file, ...JSON.parse(await readFile(file, 'utf8')) })));
}

function operationOf({ request }: Interaction) {
  return operationFor(request.method, request.path);
}

/** Runs the command over files, on a database of its own. */
async function verify(files: readonly string[]): Promise<{ code: number | null; output: string }> {
  await using database = await createDatabase();
  const { PATH = '', HOME = '' } = process.env;
  const child = spawn(process.execPath, ['scripts/pact-verify.mjs', ...files], {
    env: { PATH, HOME, DATABASE_URL: database.url },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: DEADLINE_MS,
  });
  const gone = new Promise<number | null>((resolve) => child.once('close', resolve));
  const over = endsWithFile({
    end: async () => void (child.kill('SIGTERM') && (await gone)),
    kill: () => void child.kill('SIGKILL'),
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await gone;
  over();
  return { code, output };
}

describe('the pacts', () => {
  it('ask for nothing that the contract does not have', async () => {
    for (const { file, interactions } of await pacts()) {
      for (const interaction of interactions) {
        const { request, response, description } = interaction;
        const operation = operationOf(interaction);
        const named = operation === null ? ['404', '405'] : Object.keys(operation.responses);
        expect(named, `${file}: ${description}`).toContain(String(response.status));
        const schema = operation?.requestBody?.content['application/json']?.schema;
        if (schema === undefined || response.status >= 300) continue;
        expect(compile(schema, 'request')(request.body), `${file}: ${description}`).toBeNull();
      }
    }
  });

  it.runIf(LONG)(
    'are kept by a running server, and one that is not kept is told',
    { timeout: DEADLINE_MS + 10_000 },
    async () => {
      const folder = await mkdtemp(join(tmpdir(), 'llama-orch-broken-pact-'));
      const broken = join(folder, 'broken.json');
      const request = { method: 'GET', path: '/v1/capabilities' };
      const response = { status: 200, headers: {}, body: { api_version: '9.9.9' } };
      const interactions = [
        { description: 'another version', providerStates: [{ name: 'a state of theirs' }], request, response },
      ];
      const metadata = { pactSpecification: { version: '3.0.0' } };
      await writeFile(
        broken,
        JSON.stringify({ consumer: { name: 'them' }, provider: { name: 'us' }, interactions, metadata }),
      );
      const ours = await pacts();
      try {
        const { code, output } = await verify([...ours.map(({ file }) => file), broken]);
        for (const { interactions: all } of ours) expect(output).toContain(`: ${all.length} interactions, kept`);
        expect(output).toContain('note: no such state here: "a state of theirs"');
        expect(output).toContain('them: 1 interactions, BROKEN, 1 of them:');
        expect(code).toBe(1);
      } finally {
        await rm(folder, { recursive: true, force: true });
      }
    },
  );
});
