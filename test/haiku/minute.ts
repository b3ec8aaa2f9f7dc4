const ONES = [
  'zero',
  'one',
  'two',
  'three',
  'four',
  'five',
  'six',
  'seven',
  'eight',
  'nine',
  'ten',
  'eleven',
  'twelve',
];
const TEENS = ['thirteen', 'fourteen', 'fifteen', 'sixteen', 'seventeen', 'eighteen', 'nineteen'];
const SMALL = [...ONES, ...TEENS];
const TENS = ['twenty', 'thirty', 'forty', 'fifty'];

/** The minute of a time in English words, e.g. `forty-seven`. */
export function minuteInWords(time: Date): string {
  const minute = time.getUTCMinutes();
  const small = SMALL[minute];
  if (small !== undefined) return small;
  const tens = TENS[Math.floor(minute / 10) - 2] ?? '';
  return minute % 10 === 0 ? tens : `${tens}-${SMALL[minute % 10]}`;
}
