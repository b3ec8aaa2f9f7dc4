import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { PACKAGE_JSON } from './paths.js';

/** The version of this package, from its package.json. */
export const VERSION = z.object({ version: z.string() }).parse(JSON.parse(readFileSync(PACKAGE_JSON, 'utf8'))).version;
