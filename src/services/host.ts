/** This host, as an operator sees it. */
import { readHostMemory } from '../host/hostMemory.js';

export class Host {
  /** What an engine started now could have beside its GPU memory: the machine's, or what its control group leaves. */
  memory() {
    return readHostMemory();
  }
}
