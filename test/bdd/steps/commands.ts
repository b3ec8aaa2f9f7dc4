/** The command line, as a process of its own. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { expect } from 'vitest';
import { makeHome, runToEnd } from '../../support/server.js';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';
import { answerOf } from './doors.js';

async function runCommand(scenario: Scenario, line: string, config: string | null): Promise<void> {
  const home = await makeHome();
  scenario.later(home.remove);
  const file = join(home.path, 'config.yaml');
  if (config !== null) await writeFile(file, config);
  const url = line.startsWith('run ') ? ['--url', scenario.doors.url] : [];
  const words = [...line.matchAll(/'([^']*)'|(\S+)/g)].map(([, quoted, word = '']) => quoted ?? word);
  const args = [...words, ...url, ...(config === null ? [] : ['--config', file])];
  const exchange = scenario.transcript.begin({ door: 'command line', args, environment: scenario.env, config });
  const { code, output } = await runToEnd(args, { LLAMA_ORCH_HOME: home.path, ...scenario.env });
  scenario.transcript.end(exchange, { code, output });
  scenario.answer = { status: code ?? -1, headers: {}, body: output };
}

step(/^I run "([^"]+)"(?: with the configuration:)?$/, (scenario, line: string, config?: StepData) =>
  runCommand(scenario, line, config === undefined ? null : scenario.filled(config.toString())),
);

step(/^it exits with (\d+)$/, (scenario, code: number) => {
  const { status, body } = answerOf(scenario);
  expect(status, String(body)).toBe(code);
});

step(/^it says "([^"]+)"$/, (scenario, text: string) => {
  expect(String(answerOf(scenario).body)).toContain(text);
});
