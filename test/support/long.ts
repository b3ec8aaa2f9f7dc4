/** Files that import this are run whole by `npm run test:long`, and in part by `npm test`. */
export const LONG = process.env.LLORCH_LONG_TESTS === '1';
