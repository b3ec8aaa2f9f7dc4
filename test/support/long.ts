/** `npm run test:long` runs some files whole of which `npm test` takes a part. */
export const LONG = process.env.LLORCH_LONG_TESTS === '1';
