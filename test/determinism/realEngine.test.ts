/** A short form of what realEngine.long.test.ts does with 64 seeds. */
import { realEngineSuite } from '../support/determinismSuites.js';

await realEngineSuite(8);
