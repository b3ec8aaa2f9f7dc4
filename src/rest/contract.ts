/** Routes under the contract: what comes in is held against contracts/openapi before a handler sees it. */
import { invalid, RefusalError } from '../core/errors.js';
import type { Operation, Parameter } from './openapi.js';
import { type Call, parseNumber, type Route } from './router.js';
import { type Check, compile } from './validator.js';

interface ParameterCheck {
  readonly parameter: Parameter;
  readonly check: Check;
}

/**
 * Binds each route to its operation; bodies that the handlers read are then as the contract says.
 * @throws Error when a route has no operation: nothing is served that the contract does not tell of.
 */
export function underContract(routes: readonly Route[], operations: readonly Operation[]): Route[] {
  return routes.map((route) => {
    const operation = operations.find(({ method, path }) => method === route.method && path === route.path);
    if (operation === undefined) throw new Error(`${route.method} ${route.path} is not in contracts/openapi`);
    return bound(route, operation);
  });
}

function bound(route: Route, { parameters = [], requestBody }: Operation): Route {
  const checks = parameters
    .filter(({ schema }) => schema.type !== 'string' || schema.format !== undefined || schema.pattern !== undefined)
    .map((parameter) => ({ parameter, check: compile(parameter.schema, 'request') }));
  const schema = requestBody?.content['application/json']?.schema;
  const checkBody = schema === undefined ? null : compile(schema, 'request');
  const handler = async (call: Call): Promise<void> => {
    for (const parameter of checks) checkParameter(parameter, call);
    await route.handler(checkBody === null ? call : { ...call, body: () => checkedBody(call, checkBody) });
  };
  return { ...route, handler };
}

async function checkedBody(call: Call, check: Check): Promise<unknown> {
  const body = await call.body();
  const problem = check(body);
  if (problem === null) return body;
  throw new RefusalError(invalid(problem.field === '' ? 'body' : problem.field, problem.message));
}

/** A parameter that is empty counts as left out, as clients send it who have nothing to say. */
function checkParameter({ parameter, check }: ParameterCheck, call: Call): void {
  const text = textOf(parameter, call);
  if (text === null || text === '') return;
  const isNumber = parameter.schema.type === 'integer' && /^-?\d+$/.test(text);
  const problem = check(isNumber ? parseNumber(text) : text);
  if (problem !== null) throw new RefusalError(invalid(parameter.name, problem.message));
}

function textOf({ name, in: place }: Parameter, call: Call): string | null {
  if (place === 'path') return call.params[name] ?? null;
  if (place === 'query') return call.query.get(name);
  const header = call.req.headers[name.toLowerCase()];
  return typeof header === 'string' ? header : null;
}
