/** Models of the catalog, as an operator keeps them. */
import { createHash } from 'node:crypto';
import type { Scenario } from '../scenario.js';
import { type StepData, step } from '../step.js';

/** A member of an entry: JSON where it is a list or an object, else a text. */
function memberOf(cell: string): unknown {
  return /^[[{]/.test(cell) ? JSON.parse(cell) : cell;
}

/** The digest is one of its own where the table has none. */
step(/^I register the model "([\w.-]+)"(?: with:)?$/, async (scenario, id: string, table?: StepData) => {
  const digest = `sha256:${createHash('sha256').update(id).digest('hex')}`;
  const rows = table === undefined ? [] : scenario.rows(table);
  const members = Object.fromEntries(rows.map(([name = '', cell = '']) => [name, memberOf(cell)]));
  scenario.answer = await scenario.doors.rest('POST', '/v1/catalog/models', JSON.stringify({ id, digest, ...members }));
});

async function toModel(scenario: Scenario, id: string, method: string, path = '', body?: object): Promise<void> {
  const text = body === undefined ? undefined : JSON.stringify(body);
  scenario.answer = await scenario.doors.rest(method, `/v1/catalog/models/${id}${path}`, text);
}

step(/^I look up the model "([\w.-]+)"$/, (scenario, id: string) => toModel(scenario, id, 'GET'));

step(/^I take the model "([\w.-]+)" out of the catalog$/, (scenario, id: string) => toModel(scenario, id, 'DELETE'));

step(/^I verify the model "([\w.-]+)"$/, (scenario, id: string) => toModel(scenario, id, 'POST', '/verify', {}));

step(/^I (retire|reactivate) the model "([\w.-]+)"$/, (scenario, how: string, id: string) =>
  toModel(scenario, id, 'POST', '/state', { state: how === 'retire' ? 'Retired' : 'Active' }),
);
