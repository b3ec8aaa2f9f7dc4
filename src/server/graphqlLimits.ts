/**
 * What a document may be before anything else looks at it: the rules of the specification compare fields pairwise, so a
 * small document can cost them seconds. Fragments are measured once each and counted as often as they are spread.
 */
import {
  type DocumentNode,
  type FragmentDefinitionNode,
  GraphQLError,
  Kind,
  type SelectionNode,
  type SelectionSetNode,
  TokenKind,
} from 'graphql';

export interface DocumentLimits {
  /** Of the parser. */
  readonly maxTokens: number;
  readonly maxComments: number;
  /** A wrong name is compared with every right one. */
  readonly maxNameChars: number;
  readonly maxDepth: number;
  readonly maxAliases: number;
  readonly maxDirectives: number;
  readonly maxFields: number;
  /** Spreads and inline fragments; those of one selection are compared pairwise. */
  readonly maxFragments: number;
  /** Fields that ask for the same place of the result; they are compared pairwise, with all below them. */
  readonly maxRepeats: number;
}

export const DOCUMENT_LIMITS: DocumentLimits = {
  maxTokens: 5_000,
  maxComments: 1_000,
  maxNameChars: 128,
  maxDepth: 12,
  maxAliases: 30,
  maxDirectives: 50,
  maxFields: 1_000,
  maxFragments: 150,
  maxRepeats: 30,
};

interface Size {
  readonly depth: number;
  readonly aliases: number;
  readonly directives: number;
  readonly fields: number;
  readonly fragments: number;
}

const NOTHING: Size = { depth: 0, aliases: 0, directives: 0, fields: 0, fragments: 0 };

/** Side by side: counts add up, the deeper one gives the depth. */
function beside(a: Size, b: Size): Size {
  return {
    depth: Math.max(a.depth, b.depth),
    aliases: a.aliases + b.aliases,
    directives: a.directives + b.directives,
    fields: a.fields + b.fields,
    fragments: a.fragments + b.fragments,
  };
}

type Fragments = ReadonlyMap<string, FragmentDefinitionNode>;

function fragmentsOf(document: DocumentNode): Fragments {
  const fragments = new Map<string, FragmentDefinitionNode>();
  for (const definition of document.definitions) {
    if (definition.kind === Kind.FRAGMENT_DEFINITION) fragments.set(definition.name.value, definition);
  }
  return fragments;
}

class Measure {
  readonly #fragments: Fragments;
  readonly #known = new Map<string, Size>();

  constructor(fragments: Fragments) {
    this.#fragments = fragments;
  }

  set(node: SelectionSetNode | undefined): Size {
    let size = NOTHING;
    for (const selection of node?.selections ?? []) size = beside(size, this.#selection(selection));
    return size;
  }

  fragment(name: string): Size {
    const known = this.#known.get(name);
    if (known !== undefined) return known;
    // A cycle measures as nothing here; validation refuses it by name.
    this.#known.set(name, NOTHING);
    const definition = this.#fragments.get(name);
    const size = beside(this.set(definition?.selectionSet), {
      ...NOTHING,
      directives: definition?.directives?.length ?? 0,
    });
    this.#known.set(name, size);
    return size;
  }

  #selection(node: SelectionNode): Size {
    const directives = node.directives?.length ?? 0;
    const fragment = { ...NOTHING, directives, fragments: 1 };
    if (node.kind === Kind.FRAGMENT_SPREAD) return beside(this.fragment(node.name.value), fragment);
    const inner = this.set(node.selectionSet);
    if (node.kind === Kind.INLINE_FRAGMENT) return beside(inner, fragment);
    // Tools ask for the schema eleven levels deep; validation has a depth rule of its own for that.
    const isMeta = node.name.value === '__schema' || node.name.value === '__type';
    return {
      depth: isMeta ? 1 : inner.depth + 1,
      aliases: inner.aliases + (node.alias === undefined ? 0 : 1),
      directives: inner.directives + directives,
      fields: inner.fields + 1,
      fragments: inner.fragments,
    };
  }
}

/** Walks the places of the result as execution does: what asks for the same one is taken together. */
class Places {
  readonly reached = new Set<string>();
  /** Of the place that is asked for most often. */
  repeats = 0;
  readonly #fragments: Fragments;
  #stepsLeft: number;

  constructor(fragments: Fragments, maxSteps: number) {
    this.#fragments = fragments;
    this.#stepsLeft = maxSteps;
  }

  /** False: there is no end to it in so many steps. */
  walk(sets: readonly SelectionSetNode[]): boolean {
    const below = new Map<string, SelectionSetNode[]>();
    const times = new Map<string, number>();
    const spread = new Set<string>();
    const pending = [...sets];
    for (let set = pending.pop(); set !== undefined; set = pending.pop()) {
      this.#stepsLeft -= set.selections.length;
      if (this.#stepsLeft < 0) return false;
      for (const node of set.selections) {
        if (node.kind === Kind.FIELD) {
          const name = (node.alias ?? node.name).value;
          times.set(name, (times.get(name) ?? 0) + 1);
          if (node.selectionSet === undefined) continue;
          const same = below.get(name);
          if (same === undefined) below.set(name, [node.selectionSet]);
          else same.push(node.selectionSet);
        } else if (node.kind === Kind.INLINE_FRAGMENT) pending.push(node.selectionSet);
        else pending.push(...this.#firstSpread(node.name.value, spread));
      }
    }
    this.repeats = Math.max(this.repeats, ...times.values());
    return [...below.values()].every((same) => this.walk(same));
  }

  #firstSpread(name: string, spread: Set<string>): SelectionSetNode[] {
    this.reached.add(name);
    const definition = this.#fragments.get(name);
    if (definition === undefined || spread.has(name)) return [];
    spread.add(name);
    return [definition.selectionSet];
  }
}

function refused(message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'INVALID_PARAMS' } });
}

function tooMuch(what: string, got: number, most: number): GraphQLError | null {
  return got <= most ? null : refused(`The document is too large: ${what} ${got} of at most ${most}.`);
}

function checkNames(document: DocumentNode, { maxNameChars }: DocumentLimits): GraphQLError | null {
  for (let token = document.loc?.startToken ?? null; token !== null; token = token.next) {
    if (token.kind !== TokenKind.NAME) continue;
    const tooLong = tooMuch('name length', token.end - token.start, maxNameChars);
    if (tooLong !== null) return tooLong;
  }
  return null;
}

function checkPlaces(document: DocumentNode, fragments: Fragments, limits: DocumentLimits): GraphQLError | null {
  const places = new Places(fragments, limits.maxFields + limits.maxFragments);
  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue;
    // Its size is known to be less, so it is a circle.
    if (!places.walk([definition.selectionSet])) return refused('Fragments spread each other in a circle.');
  }
  for (const name of fragments.keys()) {
    // Nothing has measured it, and validation would walk it all the same.
    if (!places.reached.has(name)) return refused(`Fragment "${name}" is never used.`);
  }
  return tooMuch('one field', places.repeats, limits.maxRepeats);
}

/** First limit that the document breaks, or null. Linear in the size of the document. */
export function checkDocument(document: DocumentNode, limits: DocumentLimits): GraphQLError | null {
  const fragments = fragmentsOf(document);
  const measure = new Measure(fragments);
  let total = NOTHING;
  for (const definition of document.definitions) {
    if (definition.kind !== Kind.OPERATION_DEFINITION) continue;
    const own = { ...NOTHING, directives: definition.directives?.length ?? 0 };
    total = beside(total, beside(measure.set(definition.selectionSet), own));
  }
  return (
    checkNames(document, limits) ??
    tooMuch('depth', total.depth, limits.maxDepth) ??
    tooMuch('aliases', total.aliases, limits.maxAliases) ??
    tooMuch('directives', total.directives, limits.maxDirectives) ??
    tooMuch('fields', total.fields, limits.maxFields) ??
    tooMuch('fragments', total.fragments, limits.maxFragments) ??
    checkPlaces(document, fragments, limits)
  );
}
