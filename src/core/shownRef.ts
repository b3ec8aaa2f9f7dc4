/** A model reference as it may be told to others: a URL without who may fetch it. Its query may be a signature. */
export function shownRef(modelRef: string): string {
  return modelRef.replace(/(:\/\/)[^\s/@]+@/, '$1').replace(/(:\/\/[^?]*)\?.*$/s, '$1?…');
}
