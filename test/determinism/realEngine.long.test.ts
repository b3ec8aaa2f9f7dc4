import { realEngineSuite } from '../support/determinismSuites.js';

await realEngineSuite(64);
