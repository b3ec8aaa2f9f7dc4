/** What differs between two command lines, flag by flag. Pure. */

export interface FlagChange {
  /** With its dashes; empty for a word that belongs to no flag. */
  readonly flag: string;
  /** Null: not given. Empty: given without a value. */
  readonly before: string | null;
  readonly after: string | null;
}

const NO_FLAG = '';

/**
 * Sorted by flag. The order of different flags does not matter, nor whether a value stands behind `=` or in the next
 * word; values of a repeated flag are compared in their order, and so are the words without a flag.
 * @param ignored flags that are not compared, e.g. ports, which differ at every start.
 */
export function flagChanges(
  before: readonly string[],
  after: readonly string[],
  ignored: ReadonlySet<string> = new Set(),
): FlagChange[] {
  const [old, now] = [valuesByFlag(before), valuesByFlag(after)];
  return [...new Set([...old.keys(), ...now.keys()])]
    .filter((flag) => !ignored.has(flag))
    .sort()
    .flatMap((flag) => changesOf(flag, old.get(flag) ?? [], now.get(flag) ?? []));
}

/** `-` alone is a word, and so are negative numbers. */
function isFlag(word: string): boolean {
  return /^-(?!$|\.?\d)/.test(word);
}

/**
 * Only the engine knows which of its flags take a value, so a flag has the next word unless that is a flag, and no more
 * than that: of a list, the rest are words without a flag. After `--` everything is one.
 */
function valuesByFlag(args: readonly string[]): ReadonlyMap<string, readonly string[]> {
  const values = new Map<string, string[]>();
  const add = (flag: string, value: string): void => {
    const known = values.get(flag);
    if (known === undefined) values.set(flag, [value]);
    else known.push(value);
  };
  const end = args.indexOf('--');
  const flagged = end < 0 ? args : args.slice(0, end);
  let open = NO_FLAG;
  for (const word of flagged) {
    const wasOpen = open;
    open = NO_FLAG;
    if (!isFlag(word)) {
      add(wasOpen, word);
      continue;
    }
    if (wasOpen !== NO_FLAG) add(wasOpen, '');
    const equals = word.indexOf('=');
    if (equals < 0) open = word;
    else add(word.slice(0, equals), word.slice(equals + 1));
  }
  if (open !== NO_FLAG) add(open, '');
  for (const word of args.slice(flagged.length)) add(NO_FLAG, word);
  return values;
}

/** What both begin and end with is the same; what stands between is compared place by place. */
function changesOf(flag: string, before: readonly string[], after: readonly string[]): FlagChange[] {
  const shorter = Math.min(before.length, after.length);
  let head = 0;
  while (head < shorter && before[head] === after[head]) head += 1;
  let tail = 0;
  while (tail < shorter - head && before.at(-1 - tail) === after.at(-1 - tail)) tail += 1;
  const [gone, come] = [before.slice(head, before.length - tail), after.slice(head, after.length - tail)];
  return Array.from({ length: Math.max(gone.length, come.length) }, (_, place) => ({
    flag,
    before: gone[place] ?? null,
    after: come[place] ?? null,
  })).filter((change) => change.before !== change.after);
}
