/** A short form of what simulator.long.test.ts does with 64 seeds. */
import { simulatorSuite } from '../support/determinismSuites.js';

simulatorSuite(8);
