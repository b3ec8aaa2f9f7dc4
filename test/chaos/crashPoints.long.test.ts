import { crashSuite } from '../support/crashSuite.js';

crashSuite(Array.from({ length: 20 }, (_, index) => index + 1));
