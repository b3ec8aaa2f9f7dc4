// Writes src/rest/generated/*.ts, the types of contracts/openapi/*.yaml. `--check` writes nothing and fails when a committed
// file is not what the contract says. int64 values are `number | bigint`, as the parser of bodies makes them.
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import openapiTypes, { astToString } from 'openapi-typescript';
import ts from 'typescript';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const folder = join(root, 'src', 'rest', 'generated');
const check = process.argv.includes('--check');
const INT64 = ts.factory.createUnionTypeNode([
  ts.factory.createKeywordTypeNode(ts.SyntaxKind.NumberKeyword),
  ts.factory.createKeywordTypeNode(ts.SyntaxKind.BigIntKeyword),
]);

mkdirSync(folder, { recursive: true });
for (const plane of ['data', 'control']) {
  const source = join(root, 'contracts', 'openapi', `${plane}.yaml`);
  const tree = await openapiTypes(pathToFileURL(source), {
    alphabetize: true,
    immutable: true,
    transform: ({ type, format, nullable }) =>
      type === 'integer' && format === 'int64' && nullable !== true ? INT64 : undefined,
  });
  const text = `// Generated from contracts/openapi/${plane}.yaml by \`npm run contracts\`.\n${astToString(tree)}`;
  const target = join(folder, `${plane}.ts`);
  if (!check) writeFileSync(target, text);
  else if (!existsSync(target) || readFileSync(target, 'utf8') !== text) {
    console.error(`src/rest/generated/${plane}.ts is stale: run npm run contracts and commit it`);
    process.exitCode = 1;
  }
}
