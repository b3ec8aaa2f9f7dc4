/**
 * The simulator's language model: a vocabulary, a tokenizer and a generator. Pure and deterministic: the text depends
 * on (model, prompt, seed, sampling) and on nothing else, so not on slot, time or load.
 *
 * Token ids: 0 unknown, 1 begin of sequence, 2 end of sequence; from FIRST_WORD on, the vocabulary; above that, ids
 * that spell out one to three raw bytes of text the vocabulary does not know. So every text can be told in tokens and
 * every token id can be turned back into bytes.
 */
import { createHash } from 'node:crypto';

export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
}

export const GREEDY: Sampling = { temperature: 0, topK: 1, topP: 1, minP: 0 };

export const BOS = 1;
export const EOS = 2;
const FIRST_WORD = 259;
/** First id of the runs of 1, 2 and 3 bytes, by length. */
const BYTE_RUNS = [0, 3, 0x1_0000, 0x100_0000] as const;
const MAX_RUN_BYTES = 3;

const WORDS =
  `the of and to in a is that for it was on as with be by at this had not are but from or have an they which one you
were her all she there would their we him been has when who will more no if out so said what up its about into than
them can only other new some could time these two may then do first any my now such like our over man me even most
made after also did many before must through years where much your way well down should because each just those
people how too little state good very make world still own see men work long get here between both life being under
never day same another know while last might us great old year off come since against go came right used take three
small large water light night morning river stone garden window letter music silver autumn winter summer quiet slow
bright early road house table paper machine signal pattern number measure answer question reason story voice shadow
mountain harbour island forest meadow lantern engine café naïve piñata façade über señor œuvre`.split(/\s+/);
const PUNCTUATION = [',', '.', ';', '\n'];

/** Text of each vocabulary token; a word carries the space before it, as in most tokenizers. */
const PIECES: readonly string[] = [...PUNCTUATION, ...WORDS.map((word) => ` ${word}`)];
const ID_BY_PIECE = new Map(PIECES.map((piece, index) => [piece, FIRST_WORD + index]));
const FIRST_PLAIN_WORD = FIRST_WORD + PUNCTUATION.length;

export const VOCABULARY_SIZE = BYTE_RUNS[MAX_RUN_BYTES] + 0x100_0000;
export const LAST_VOCABULARY_ID = FIRST_WORD + PIECES.length - 1;

/** Every text splits into these without loss: a word with the space before it, a lone space, any other character. */
const PIECE_PATTERN = / ?[\p{L}\p{M}\p{N}_]+| |[^\p{L}\p{M}\p{N}_ ]/gu;

/** Ids of a text, without begin-of-sequence. */
export function tokenize(text: string): number[] {
  const ids: number[] = [];
  for (const [piece] of text.matchAll(PIECE_PATTERN)) {
    const known = ID_BY_PIECE.get(piece);
    if (known !== undefined) ids.push(known);
    else pushByteRuns(Buffer.from(piece, 'utf8'), ids);
  }
  return ids;
}

function pushByteRuns(bytes: Buffer, ids: number[]): void {
  for (let at = 0; at < bytes.length; at += MAX_RUN_BYTES) {
    const run = bytes.subarray(at, at + MAX_RUN_BYTES);
    const firstId = BYTE_RUNS[run.length] ?? 0;
    ids.push(firstId + run.readUIntBE(0, run.length));
  }
}

/** The text of ids; special and unknown ids have none. Bytes that form no character become U+FFFD. */
export function detokenize(ids: readonly number[]): string {
  return Buffer.concat(ids.map(tokenBytes)).toString('utf8');
}

/** How many bytes of text a token stands for. */
export function byteLengthOf(id: number): number {
  return tokenBytes(id).length;
}

/** Whether a value is an id that the vocabulary or a run of raw bytes may have. */
export function isTokenId(value: unknown): value is number {
  return Number.isInteger(value) && Number(value) >= 0 && Number(value) < VOCABULARY_SIZE;
}

export function tokenBytes(id: number): Buffer {
  if (id >= FIRST_WORD && id <= LAST_VOCABULARY_ID) return Buffer.from(PIECES[id - FIRST_WORD] ?? '', 'utf8');
  for (let length = MAX_RUN_BYTES; length >= 1; length -= 1) {
    const value = id - (BYTE_RUNS[length] ?? 0);
    if (value < 0 || value >= 256 ** length) continue;
    const bytes = Buffer.alloc(length);
    bytes.writeUIntBE(value, 0, length);
    return bytes;
  }
  return Buffer.alloc(0);
}

/** The piece of a vocabulary id, as the generator emits them. */
export function pieceOf(id: number): string {
  return PIECES[id - FIRST_WORD] ?? '';
}

/** Four bytes each in UTF-8. */
const EMOJI = ['😀', '🌍', '🎉', '🦙', '🚀'];

/** An endless text: each `next()` is the id of one more token. Sampling at temperature 0 takes no notice of the seed. */
export class Generator {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;
  #sinceStop = 0;
  readonly #splitsCharacters: boolean;
  /** The second token of a character that was split. */
  #secondHalf: number | null = null;

  constructor(model: string, prompt: string, seed: number, sampling: Sampling, splitsCharacters = false) {
    this.#splitsCharacters = splitsCharacters;
    const key = sampling.temperature > 0 ? [model, seed, sampling] : [model, 'greedy'];
    const state = createHash('sha256').update(JSON.stringify(key)).update('\0').update(prompt).digest();
    this.#a = state.readInt32LE(0);
    this.#b = state.readInt32LE(4);
    this.#c = state.readInt32LE(8);
  }

  next(): number {
    if (this.#secondHalf !== null) {
      const half = this.#secondHalf;
      this.#secondHalf = null;
      return half;
    }
    const random = this.#random();
    if (this.#splitsCharacters && (random >>> 16) % 8 === 0) return this.#splitEmoji(random);
    this.#sinceStop += 1;
    // Every few words some punctuation, so that the text reads as sentences.
    if (this.#sinceStop > 5 && random % 7 === 0) {
      this.#sinceStop = 0;
      return FIRST_WORD + ((random >>> 8) % PUNCTUATION.length);
    }
    return FIRST_PLAIN_WORD + (random % WORDS.length);
  }

  #splitEmoji(random: number): number {
    const bytes = Buffer.from(EMOJI[random % EMOJI.length] ?? '', 'utf8');
    this.#secondHalf = BYTE_RUNS[2] + bytes.readUInt16BE(2);
    return BYTE_RUNS[2] + bytes.readUInt16BE(0);
  }

  // sfc32, a small fast counter-based generator: 32 bits per call.
  #random(): number {
    const mixed = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + mixed) | 0;
    return mixed >>> 0;
  }
}

export const EMBEDDING_DIMENSIONS = 16;

/** A vector of length 1, by the text's hash: equal texts have equal vectors, and similar texts nothing in common. */
export function embed(model: string, text: string, dimensions = EMBEDDING_DIMENSIONS): readonly number[] {
  const hash = createHash('sha512')
    .update(JSON.stringify([model, text]))
    .digest();
  const raw = Array.from(
    { length: dimensions },
    (_, index) => hash.readInt32LE((index % EMBEDDING_DIMENSIONS) * 4) >> ((index / EMBEDDING_DIMENSIONS) % 24),
  );
  const length = Math.hypot(...raw);
  return raw.map((value) => value / length);
}

/** Between 0 and 1: the share of the query's tokens that the document has, and a little of its hash against ties. */
export function rerankScore(model: string, query: string, document: string): number {
  const wanted = new Set(tokenize(query));
  const has = new Set(tokenize(document));
  const shared = [...wanted].filter((id) => has.has(id)).length;
  const tieBreak = createHash('sha256')
    .update(JSON.stringify([model, query, document]))
    .digest()
    .readUInt32LE(0);
  return (0.9 * shared) / Math.max(wanted.size, 1) + (0.1 * tieBreak) / 2 ** 32;
}
