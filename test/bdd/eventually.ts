/** Waits of steps: what is awaited comes, or the step fails late and says what it saw instead. */
import { expect } from 'vitest';

/** Less than a step has, so that it says what it waited for. A machine may be slow, and a test fails late, not by chance. */
const DEADLINE_MS = 60_000;

/** `expect.poll` with the deadline of a step. */
export function eventually<T>(look: () => T | Promise<T>, options: { interval?: number; message?: string } = {}) {
  return expect.poll(look, { timeout: DEADLINE_MS, interval: 50, ...options });
}
