// Writes contracts/config.schema.json and contracts/metrics.json from what the code says. `--check` writes nothing and
// fails when a committed file differs. Needs dist/ (npm run build).
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const load = (file) => import(pathToFileURL(join(root, 'dist', file)).href);

if (!existsSync(join(root, 'dist', 'telemetry', 'contract.js'))) {
  console.error('dist/ is missing: run npm run build first');
  process.exit(1);
}
const { configJsonSchema } = await load('config/schema.js');
const { metricsContract } = await load('telemetry/contract.js');
const files = { 'config.schema.json': configJsonSchema(), 'metrics.json': metricsContract() };

mkdirSync(join(root, 'contracts'), { recursive: true });
for (const [name, content] of Object.entries(files)) {
  const target = join(root, 'contracts', name);
  const text = `${JSON.stringify(content, null, 2)}\n`;
  if (!process.argv.includes('--check')) writeFileSync(target, text);
  else if (!existsSync(target) || readFileSync(target, 'utf8') !== text) {
    console.error(`contracts/${name} is stale: run npm run contracts and commit it`);
    process.exitCode = 1;
  }
}
