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
} from 'graphql';

export interface DocumentLimits {
  readonly maxTokens: number;
  readonly maxDepth: number;
  readonly maxAliases: number;
  readonly maxDirectives: number;
  readonly maxFields: number;
}

export const DOCUMENT_LIMITS: DocumentLimits = {
  maxTokens: 5_000,
  maxDepth: 12,
  maxAliases: 30,
  maxDirectives: 50,
  maxFields: 1_000,
};

interface Size {
  readonly depth: number;
  readonly aliases: number;
  readonly directives: number;
  readonly fields: number;
}

const NOTHING: Size = { depth: 0, aliases: 0, directives: 0, fields: 0 };

/** Side by side: counts add up, the deeper one gives the depth. */
function beside(a: Size, b: Size): Size {
  return {
    depth: Math.max(a.depth, b.depth),
    aliases: a.aliases + b.aliases,
    directives: a.directives + b.directives,
    fields: a.fields + b.fields,
  };
}

class Measure {
  readonly #fragments: ReadonlyMap<string, FragmentDefinitionNode>;
  readonly #known = new Map<string, Size>();

  constructor(document: DocumentNode) {
    const fragments = new Map<string, FragmentDefinitionNode>();
    for (const definition of document.definitions) {
      if (definition.kind === Kind.FRAGMENT_DEFINITION) fragments.set(definition.name.value, definition);
    }
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
    if (node.kind === Kind.FRAGMENT_SPREAD) return beside(this.fragment(node.name.value), { ...NOTHING, directives });
    const inner = this.set(node.selectionSet);
    if (node.kind === Kind.INLINE_FRAGMENT) return beside(inner, { ...NOTHING, directives });
    // Tools ask for the schema eleven levels deep; validation has a depth rule of its own for that.
    const isMeta = node.name.value === '__schema' || node.name.value === '__type';
    return {
      depth: isMeta ? 1 : inner.depth + 1,
      aliases: inner.aliases + (node.alias === undefined ? 0 : 1),
      directives: inner.directives + directives,
      fields: inner.fields + 1,
    };
  }
}

function tooMuch(what: string, got: number, most: number): GraphQLError | null {
  if (got <= most) return null;
  return new GraphQLError(`The document is too large: ${what} ${got} of at most ${most}.`, {
    extensions: { code: 'INVALID_PARAMS' },
  });
}

/** First limit that the document breaks, or null. Linear in the size of the document. */
export function checkDocument(document: DocumentNode, limits: DocumentLimits): GraphQLError | null {
  const measure = new Measure(document);
  let total = NOTHING;
  for (const definition of document.definitions) {
    if (definition.kind === Kind.OPERATION_DEFINITION) {
      const own = { ...NOTHING, directives: definition.directives?.length ?? 0 };
      total = beside(total, beside(measure.set(definition.selectionSet), own));
    } else if (definition.kind === Kind.FRAGMENT_DEFINITION) {
      // Also when nothing spreads it: validation walks it all the same.
      const alone = measure.fragment(definition.name.value);
      total = { ...total, fields: Math.max(total.fields, alone.fields) };
    }
  }
  return (
    tooMuch('depth', total.depth, limits.maxDepth) ??
    tooMuch('aliases', total.aliases, limits.maxAliases) ??
    tooMuch('directives', total.directives, limits.maxDirectives) ??
    tooMuch('fields', total.fields, limits.maxFields)
  );
}
