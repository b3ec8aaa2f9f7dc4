/** Everything secret in what a start is given. */
import type { Environment } from '../config/environment.js';
import type { Config } from '../config/schema.js';
import { secretValues } from '../engines/redact.js';

/** Not TOKENS: variables that have it count them. */
const SECRET_VARIABLE = /(?:^|_)(?:TOKEN|(?:KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?)(?:_|$)/i;

/** A number is a limit or a switch, whatever its name, and would be taken out of everything that is counted. */
function isSecret(name: string, value: string): boolean {
  return SECRET_VARIABLE.test(name) && !/^[\d.]+$/.test(value);
}

/** Of a URL: its password, and what its query holds under a telling name. */
function secretsOfUrl(text: string | undefined): string[] {
  if (text === undefined || !URL.canParse(text)) return [];
  const { password, searchParams } = new URL(text);
  const told = [...searchParams].flatMap(([name, value]) => (SECRET_VARIABLE.test(name) ? [value] : []));
  try {
    return [password, decodeURIComponent(password), ...told];
  } catch {
    return [password, ...told];
  }
}

export function secretsOf({ secrets }: Environment, config: Config): string[] {
  const ofPools = config.pools.flatMap(({ endpoint, metrics_endpoint, model, provisioning }) => [
    ...secretValues(provisioning.flags),
    ...Object.entries(provisioning.env).flatMap(([name, value]) => (isSecret(name, value) ? [value] : [])),
    ...[endpoint, metrics_endpoint, model].flatMap(secretsOfUrl),
  ]);
  const ofDatabase = [secrets.databaseUrl?.reveal(), config.database.url].flatMap(secretsOfUrl);
  return [...ofPools, ...ofDatabase, secrets.authToken?.reveal() ?? ''].filter((secret) => secret !== '');
}
