/** A short form of what crashPoints.long.test.ts does with 20 seeds. */
import { crashSuite } from '../support/crashSuite.js';

crashSuite([1]);
