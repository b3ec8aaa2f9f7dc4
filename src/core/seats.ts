/**
 * Which numbers the replicas of a pool have. A place (0 up to the size of the pool) decides the devices; the ordinal
 * names the replica, and is another one after a reload that started the new engines beside the old.
 */
export interface Seat {
  readonly place: number;
  readonly ordinal: number;
}

/** An engine that an earlier life of the control plane left running, as it was written down. */
export interface SeatedEngine {
  readonly ordinal: number;
  readonly modelRef: string | null;
  readonly deviceMask: string;
}

/** The smallest ordinals that nobody has, one for each place. */
export function freeSeats(places: number, taken: ReadonlySet<number>): Seat[] {
  const free = smallestFree(taken);
  return Array.from({ length: places }, (_, place) => ({ place, ordinal: free.next().value }));
}

/**
 * The seats of a pool at a start. A place goes to an engine that serves the pool's model on the devices of that place,
 * whatever its ordinal; a place without one gets the smallest ordinal that is left.
 * @param masks the devices of each place
 */
export function seatsAtStart(
  masks: readonly string[],
  modelRef: string,
  running: readonly SeatedEngine[],
): readonly Seat[] {
  const engines = running.filter((engine) => engine.modelRef === modelRef).sort((a, b) => a.ordinal - b.ordinal);
  const taken = new Set<number>();
  const kept = masks.map((mask) => {
    const engine = engines.find(({ ordinal, deviceMask }) => deviceMask === mask && !taken.has(ordinal));
    if (engine !== undefined) taken.add(engine.ordinal);
    return engine?.ordinal ?? null;
  });
  const free = smallestFree(taken);
  return kept.map((ordinal, place) => ({ place, ordinal: ordinal ?? free.next().value }));
}

function* smallestFree(taken: ReadonlySet<number>): Generator<number, never> {
  for (let ordinal = 0; ; ordinal += 1) {
    if (!taken.has(ordinal)) yield ordinal;
  }
}
