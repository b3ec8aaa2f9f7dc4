/** The tokens of one completion in order: their texts, and where the text ends. Pure. */
import { StringDecoder } from 'node:string_decoder';
import { EOS, Generator, pieceOf, type Sampling, tokenBytes } from './model.js';

/** How a completion comes to its end by itself. */
export interface DecodeEnd {
  readonly reason: 'length' | 'eos' | 'word';
  /** The stop word that was met; '' where it was none. */
  readonly word: string;
}

export const AT_LENGTH: DecodeEnd = { reason: 'length', word: '' };
const AT_EOS: DecodeEnd = { reason: 'eos', word: '' };

export interface SimToken {
  readonly id: number;
  /**
   * What the token adds to the text: '' while a character is incomplete, then the whole character; '' too for
   * end-of-sequence and for what is held back because a stop word may come of it.
   */
  readonly text: string;
  /** Its place in the completion, from 1. */
  readonly count: number;
  /** False while bytes of a character are still to come. */
  readonly whole: boolean;
  /** Of the last token, how the completion ends with it. */
  readonly end: DecodeEnd | null;
}

/** Words that end a completion, and what becomes of them in the text. */
export interface StopRules {
  readonly words: readonly string[];
  /**
   * `kept`: the word is the end of the text, found at the end of a token, unless that token is the last one anyway.
   * The others take the word and what follows it out, and so have to hold text back: `removed` what a word may begin
   * with, `removed by length` always as much as the longest word without its last character.
   */
  readonly text: 'kept' | 'removed' | 'removed by length';
}

export const NO_STOP: StopRules = { words: [], text: 'kept' };

/** Gives the tokens of one completion their texts, in order. */
export class TokenReader {
  readonly #decoder: StringDecoder | null;
  #count = 0;

  /** Without split characters every token is a piece of the vocabulary, and nothing is ever held back. */
  constructor(splitsCharacters: boolean) {
    this.#decoder = splitsCharacters ? new StringDecoder('utf8') : null;
  }

  read(id: number): SimToken {
    this.#count += 1;
    const text = this.#decoder === null ? pieceOf(id) : this.#decoder.write(tokenBytes(id));
    return { id, text, count: this.#count, whole: text !== '' || id === EOS, end: null };
  }
}

export interface TokenPlan {
  readonly model: string;
  readonly prompt: string;
  readonly seed: number;
  readonly sampling: Sampling;
  readonly splitCharacters: boolean;
  readonly stop: StopRules;
  /** The length at which the completion ends if nothing else ends it. */
  readonly tokens: number;
}

/** What the model says, token by token, until its end. */
export class TokenSource {
  readonly #generator: Generator;
  readonly #reader: TokenReader;
  readonly #watch: StopWatch | null;
  readonly #tokens: number;
  #ended = false;

  constructor({ model, prompt, seed, sampling, splitCharacters, stop, tokens }: TokenPlan) {
    this.#generator = new Generator(model, prompt, seed, sampling, splitCharacters);
    this.#reader = new TokenReader(splitCharacters);
    this.#watch = stop.words.length === 0 ? null : new StopWatch(stop);
    this.#tokens = tokens;
  }

  /** Whether a token that ends the completion has been taken. */
  get ended(): boolean {
    return this.#ended;
  }

  /** So many tokens, or fewer where the completion ends. */
  take(length: number): SimToken[] {
    const taken: SimToken[] = [];
    while (taken.length < length && !this.#ended) taken.push(this.#next());
    return taken;
  }

  endOfSequence(): SimToken {
    const token = { ...this.#reader.read(EOS), end: AT_EOS };
    this.#ended = true;
    return this.#watch === null ? token : this.#watch.see(token);
  }

  #next(): SimToken {
    let token = this.#reader.read(this.#generator.next());
    if (token.count === this.#tokens) token = { ...token, end: AT_LENGTH };
    if (this.#watch !== null) token = this.#watch.see(token);
    this.#ended = token.end !== null;
    return token;
  }
}

/** A kept stop word that is longer is never found. */
const MAX_LOOKED_BACK_CHARACTERS = 300;

/** Looks for stop words in a text that comes token by token. */
class StopWatch {
  readonly #rules: StopRules;
  readonly #longest: number;
  /** `kept`: the end of the text. Otherwise what of the text is held back. */
  #text = '';

  constructor(rules: StopRules) {
    this.#rules = rules;
    this.#longest = Math.max(...rules.words.map(({ length }) => length));
  }

  /** The token with the text that may be told, and with its end when a word is found. */
  see(token: SimToken): SimToken {
    this.#text += token.text;
    return this.#rules.text === 'kept' ? this.#keep(token) : this.#remove(token);
  }

  #keep(token: SimToken): SimToken {
    this.#text = this.#text.slice(-MAX_LOOKED_BACK_CHARACTERS);
    const word = token.end === null ? this.#rules.words.find((stop) => this.#text.endsWith(stop)) : undefined;
    return word === undefined ? token : { ...token, end: { reason: 'word', word } };
  }

  #remove(token: SimToken): SimToken {
    const found = this.#earliest();
    if (found !== null) {
      return { ...token, text: this.#text.slice(0, found.at), end: { reason: 'word', word: found.word } };
    }
    // With the last token comes everything.
    const told = this.#text.length - (token.end === null ? this.#heldCharacters() : 0);
    const text = this.#text.slice(0, told);
    this.#text = this.#text.slice(told);
    return { ...token, text };
  }

  #earliest(): { readonly at: number; readonly word: string } | null {
    let earliest: { readonly at: number; readonly word: string } | null = null;
    for (const word of this.#rules.words) {
      const at = this.#text.indexOf(word);
      if (at !== -1 && (earliest === null || at < earliest.at)) earliest = { at, word };
    }
    return earliest;
  }

  #heldCharacters(): number {
    const most = Math.min(this.#longest - 1, this.#text.length);
    if (this.#rules.text === 'removed by length') return this.#inCharacter(most) ? most + 1 : most;
    for (let length = most; length > 0; length -= 1) {
      const end = this.#text.slice(-length);
      if (this.#rules.words.some((word) => word.startsWith(end))) return length;
    }
    return 0;
  }

  /** Whether the last so many UTF-16 units begin with the second half of a character. */
  #inCharacter(length: number): boolean {
    const unit = this.#text.charCodeAt(this.#text.length - length);
    return length > 0 && unit >= 0xdc00 && unit <= 0xdfff;
  }
}
