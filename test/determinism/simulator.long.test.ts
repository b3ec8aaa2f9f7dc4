import { simulatorSuite } from '../support/determinismSuites.js';

simulatorSuite(64);
