// Writes contracts/schema.graphql from the built schema, sorted, so that a diff shows what changed for clients.
// `--check` writes nothing and fails when the committed file is not what the code says. Needs dist/ (npm run build).
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { lexicographicSortSchema, printSchema } from 'graphql';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const built = join(root, 'dist', 'schema', 'schema.js');
const target = join(root, 'contracts', 'schema.graphql');

if (!existsSync(built)) {
  console.error(`${built} is missing: run npm run build first`);
  process.exit(1);
}
const { buildSchema } = await import(pathToFileURL(built).href);
const text = `${printSchema(lexicographicSortSchema(buildSchema()))}\n`;

if (process.argv.includes('--check')) {
  if (!existsSync(target) || readFileSync(target, 'utf8') !== text) {
    console.error('contracts/schema.graphql is stale: run node scripts/print-schema.mjs and commit it');
    process.exit(1);
  }
} else {
  mkdirSync(dirname(target), { recursive: true });
  writeFileSync(target, text);
}
