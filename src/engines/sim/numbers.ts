/** Numbers of a request body as 64-bit engines read them. */
import { z } from 'zod';

/**
 * A whole number, also beyond 2^53, where zod's own integers end. Up there a body's number is the nearest that a double
 * can hold, so a bound is met by what rounds to it.
 */
export const wholeNumber = (least: number, most: number) =>
  z
    .number()
    .min(least)
    .max(most)
    .refine((value) => Number.isInteger(value), 'must be a whole number');
