/** Cells say what they mean and let nothing else through: a check that cannot fail would show nothing. */
import { expect, it } from 'vitest';
import { matches, mismatches } from './matching.js';

it.each<[string, unknown]>([
  ['any', 0],
  ['any', false],
  ['any', ''],
  ['any', [1, 'x']],
  ['none', null],
  ['none', []],
  ['absent', undefined],
  ['> 3', 4],
  ['>= 0', '17'],
  ['< 0', -0.5],
  ['/^a.c$/', 'a\nc'],
  ['/^1, 2$/', [1, 2]],
  ['1, 2', [1, 2]],
  ['true', true],
])('%s holds for %j', (cell, value) => {
  expect(matches(value, cell)).toBe(true);
});

it.each<[string, unknown]>([
  ['any', null],
  ['any', undefined],
  ['any', []],
  ['any', [1, undefined]],
  ['any', [[]]],
  ['none', undefined],
  ['none', 0],
  ['none', ''],
  ['none', [null]],
  ['absent', null],
  ['> 3', 3],
  ['>= 0', null],
  ['>= 0', undefined],
  ['>= 0', []],
  ['< 5', []],
  ['< 5', [1]],
  ['>= 0', ''],
  ['>= 0', ' '],
  ['>= 0', false],
  ['< 5', 'few'],
  ['> 5', 'many'],
  ['/.+/', null],
  ['/.+/', undefined],
  ['/.*/', []],
  ['/.+/', [undefined]],
  ['/.+/', [null]],
  ['/.+/', { a: 1 }],
  ['/.+/', [{ a: 1 }]],
  ['/.+/', ''],
  ['null', null],
  ['undefined', undefined],
  ['1, 2', [1, 2, null]],
])('%s does not hold for %j', (cell, value) => {
  expect(matches(value, cell)).toBe(false);
});

it('a place that is not there is told as that, and satisfies nothing but absent', () => {
  const answer = { error: null, steps: [{ name: 'a', state: 'DONE' }, { name: 'b' }] };
  const rows = [
    ['error', 'none'],
    ['eror', 'none'],
    ['steps[name=a].state', 'DONE'],
    ['steps[name=c].state', 'none'],
    ['steps.*.state', 'any'],
    ['steps[1].name', '/^b$/'],
    ['toString', 'any'],
    ['eror', 'absent'],
    ['error', 'absent'],
  ];
  expect(mismatches(answer, rows)).toEqual([
    'eror: wanted none, found nothing there',
    'steps[name=c].state: wanted none, found nothing there',
    'steps.*.state: wanted any, found ["DONE",null]',
    'toString: wanted any, found nothing there',
    'error: wanted absent, found null',
  ]);
});
