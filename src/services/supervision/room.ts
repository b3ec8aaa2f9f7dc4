/** Whether a pool can have its engines twice for a while: the new ones beside those that serve. */
import type { Reason } from '../../core/pool.js';
import { type Device, firstMisfit, firstUnusable, needOf } from './memory.js';
import type { Recipe } from './recipe.js';

/** `refused`: nothing can be started there now, so that what runs had better be left alone. */
export type Room =
  | { readonly kind: 'beside' }
  | { readonly kind: 'none'; readonly reason: Reason }
  | { readonly kind: 'refused'; readonly reason: Reason };

function none(code: string, message: string): Room {
  return { kind: 'none', reason: { code, message, fix: null } };
}

/** @param places the devices of each replica, with the memory that is free beside all that runs now. */
export async function roomBeside(
  recipe: Recipe,
  modelRef: string,
  places: readonly (readonly Device[])[],
): Promise<Room> {
  if (!recipe.spawns) return none('ENGINE_NOT_OURS', 'its engines are started by somebody else');
  const plan = recipe.memory(modelRef);
  const taken = new Map<string, number>();
  for (const devices of places) {
    const unusable = firstUnusable(devices);
    if (unusable !== null) return { kind: 'refused', reason: unusable };
    const needs = await needOf(plan, devices);
    // Too little host memory may be mended by ending the old engines first; a broken file is not.
    if ('code' in needs) return { kind: needs.code === 'MODEL_UNREADABLE' ? 'refused' : 'none', reason: needs };
    if (needs.length === 0) return none('NEED_UNKNOWN', 'nobody knows how much memory a second engine would need');
    const left = devices.map((device) => ({ ...device, freeBytes: leftOn(device, taken) }));
    const misfit = firstMisfit(needs, left);
    if (misfit !== null) return { kind: 'none', reason: misfit };
    for (const [index, { totalBytes }] of needs.entries()) {
      const uuid = devices[index]?.uuid ?? '';
      taken.set(uuid, (taken.get(uuid) ?? 0) + totalBytes);
    }
  }
  return { kind: 'beside' };
}

function leftOn({ uuid, freeBytes }: Device, taken: ReadonlyMap<string, number>): number {
  return Math.max(0, freeBytes - (taken.get(uuid) ?? 0));
}
