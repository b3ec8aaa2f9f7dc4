/** The specification, run: what callers and operators get from the control plane. */
import { runFeatures } from './features.js';

await runFeatures((file) => !file.includes('/pool-managerd/'));
