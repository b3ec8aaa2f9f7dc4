/** What is wrong with the configuration, as data, and the one error that carries it. No value of the user's is ever part of it. */

/** Both from 1. */
export interface Position {
  readonly line: number;
  readonly column: number;
}

/** What a file holds, and where: of a key that is not there, the nearest thing around it. */
export interface ParsedFile {
  readonly data: unknown;
  readonly positionOf: (path: readonly PropertyKey[]) => Position;
}

/** One thing to mend. `message` reads "what is wrong — how to fix". */
export interface ConfigProblem {
  /** The file as the user named it, or `environment`. */
  readonly source: string;
  /** Where in the file; null where no place can be named. */
  readonly position: Position | null;
  /** The key, e.g. `pools[0].engine`, or the variable's name; empty for the file as a whole. */
  readonly path: string;
  readonly message: string;
  /** A stable name, for the refusals that have one, e.g. NON_LOOPBACK_WITHOUT_TOKEN. */
  readonly code?: string;
}

const MAX_LISTED_PROBLEMS = 50;

function formatProblem(problem: ConfigProblem): string {
  const place = problem.position ? `:${problem.position.line}:${problem.position.column}` : '';
  return [`${problem.source}${place}`, problem.path, problem.message].filter((part) => part !== '').join('  ');
}

/** The configuration cannot be used. `message` has one line per problem; `problems` is never empty. */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[];
  constructor(problems: readonly ConfigProblem[], options?: { cause?: unknown }) {
    const lines = problems.slice(0, MAX_LISTED_PROBLEMS).map(formatProblem);
    const unlisted = problems.length - lines.length;
    if (unlisted > 0) lines.push(`… and ${unlisted} more`);
    super(lines.join('\n'), options);
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** Throws the ConfigError for a file that cannot be read as a whole. */
export function failFile(file: string, message: string, cause?: unknown): never {
  throw new ConfigError([{ source: file, position: null, path: '', message }], { cause });
}
