import { describe, expect, it } from 'vitest';
import { tinyModelBytes } from './tinyModel.js';

describe('tinyModelBytes', () => {
  it('makes a GGUF v3 file of about half a megabyte', () => {
    const bytes = tinyModelBytes();
    expect(bytes.toString('latin1', 0, 4)).toBe('GGUF');
    expect(bytes.readUInt32LE(4)).toBe(3);
    expect(bytes.readBigUInt64LE(8)).toBe(21n);
    expect(bytes.length % 32).toBe(0);
    expect(bytes.length).toBeGreaterThan(500_000);
    expect(bytes.length).toBeLessThan(700_000);
  });

  it('makes the same bytes for the same seed and others for another', () => {
    expect(tinyModelBytes({ seed: 7 }).equals(tinyModelBytes({ seed: 7 }))).toBe(true);
    expect(tinyModelBytes({ seed: 7 }).equals(tinyModelBytes({ seed: 8 }))).toBe(false);
  });
});
