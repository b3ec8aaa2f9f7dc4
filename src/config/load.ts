/** From a file to a checked Config. Every problem is found in one pass where possible and named with its line and its fix. */
import { closeSync, fstatSync, openSync, readFileSync, statSync } from 'node:fs';
import { describeIssue, formatPath } from './describe.js';
import { ConfigError, failFile } from './error.js';
import { type Config, ConfigSchema } from './schema.js';
import { parseToml } from './toml.js';
import { parseYaml } from './yaml.js';

const MAX_FILE_BYTES = 1024 * 1024;

/**
 * Checks `text` as a configuration. `fileName` names it in messages, and says that it is TOML where it ends in `.toml`.
 * Throws ConfigError, which lists every problem in the order of the file.
 */
export function parseConfig(text: string, fileName: string): Config {
  if (Buffer.byteLength(text) > MAX_FILE_BYTES)
    failFile(fileName, 'is larger than 1 MB — that is no configuration file');
  const { data, positionOf } = fileName.endsWith('.toml') ? parseToml(text, fileName) : parseYaml(text, fileName);
  if (data === null) failFile(fileName, 'is empty — begin with docs/config.example.yaml');
  const result = ConfigSchema.safeParse(data);
  if (result.success) return result.data;
  const problems = result.error.issues
    .flatMap((issue) => describeIssue(issue, data))
    .map(({ path, message }) => ({ position: positionOf(path), path: formatPath(path), message }))
    .sort((a, b) => a.position.line - b.position.line || a.position.column - b.position.column)
    .map((problem) => ({ source: fileName, ...problem }));
  throw new ConfigError(problems);
}

function readFailure(error: unknown): string {
  switch (error instanceof Error && 'code' in error ? error.code : undefined) {
    case 'ENOENT':
    case 'ENOTDIR':
      return 'does not exist — check the path, or begin with docs/config.example.yaml';
    case 'EACCES':
    case 'EPERM':
      return 'cannot be read by this user — change its permissions';
    default:
      return 'cannot be read — check that the path is right and the disk works';
  }
}

function readBytes(file: string): Buffer {
  // Asked before opening: opening a pipe would wait for a writer that may never come.
  if (!statSync(file).isFile()) failFile(file, 'is not a regular file — give the path of a YAML or TOML file');
  const descriptor = openSync(file, 'r');
  try {
    if (fstatSync(descriptor).size > MAX_FILE_BYTES)
      failFile(file, 'is larger than 1 MB — that is no configuration file');
    return readFileSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
}

/** Reads and checks a file. Throws ConfigError for anything that is wrong with it, unreadable files included. */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = new TextDecoder('utf-8', { fatal: true }).decode(readBytes(file));
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    if (error instanceof TypeError) failFile(file, 'is not UTF-8 text — save it as UTF-8', error);
    failFile(file, readFailure(error), error);
  }
  return parseConfig(text, file);
}
