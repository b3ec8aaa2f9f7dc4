const MAX_CHARS = 256;

/** A model reference as it may be told to others: a URL without who may fetch it, of a length that fits a message. */
export function shownRef(modelRef: string): string {
  const short = modelRef.length <= MAX_CHARS ? modelRef : `${modelRef.slice(0, MAX_CHARS)}…`;
  // A query may be a signature.
  return short.replace(/(:\/\/)[^\s/@]+@/, '$1').replace(/(:\/\/[^?]*)\?.*$/s, '$1?…');
}
