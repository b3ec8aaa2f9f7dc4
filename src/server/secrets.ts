/** Everything secret in what a start is given. */
import type { Environment } from '../config/environment.js';
import type { Config } from '../config/schema.js';
import { secretValues } from '../engines/redact.js';

const SECRET_VARIABLE = /(?:^|_)(?:TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?(?:_|$)/i;

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
    ...Object.entries(provisioning.env).flatMap(([name, value]) => (SECRET_VARIABLE.test(name) ? [value] : [])),
    ...[endpoint, metrics_endpoint, model].flatMap(secretsOfUrl),
  ]);
  const ofDatabase = [secrets.databaseUrl?.reveal(), config.database.url].flatMap(secretsOfUrl);
  return [...ofPools, ...ofDatabase, secrets.authToken?.reveal() ?? ''].filter((secret) => secret !== '');
}
