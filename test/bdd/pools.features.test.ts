/** The specification, run: what pools and their engines do. */
import { runFeatures } from './features.js';

await runFeatures((file) => file.includes('/pool-managerd/'));
