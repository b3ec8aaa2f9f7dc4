/** Numbers and the table they are shown in. */

export function median(values) {
  return percentile(values, 50);
}

/** Nearest rank. */
export function percentile(values, rank) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil((rank / 100) * sorted.length) - 1)] ?? Number.NaN;
}

/** As a person reads it: 1 240 000 → 1.24 M, 123 456 → 123 k. */
export function count(value) {
  if (value >= 1e6) return `${(value / 1e6).toFixed(2)} M`;
  if (value >= 1e4) return `${(value / 1e3).toFixed(0)} k`;
  return value.toFixed(0);
}

export function ms(value) {
  return `${value.toFixed(2)} ms`;
}

export function kilobytes(bytes) {
  return `${(bytes / 1000).toFixed(1)} kB`;
}

/**
 * @typedef {{ what: string, ours: string, raw: string, result: string, aim: string }} Row
 * @param {Row[]} rows @returns {string} A markdown table that reads as plain text too.
 */
export function table(rows) {
  const head = { what: 'measured', ours: 'llama-orch', raw: 'raw, in the same run', result: 'result', aim: 'aim' };
  const keys = Object.keys(head);
  const widths = keys.map((key) => Math.max(...[head, ...rows].map((row) => row[key].length)));
  const line = (cells) => `| ${cells.map((cell, index) => cell.padEnd(widths[index])).join(' | ')} |`;
  const rule = `|${widths.map((width) => '-'.repeat(width + 2)).join('|')}|`;
  return [line(keys.map((key) => head[key])), rule, ...rows.map((row) => line(keys.map((key) => row[key])))].join('\n');
}
