/** The tests that a file defines, read off its syntax: what stands in a comment, or is skipped, is none. */
import { readFileSync } from 'node:fs';
import ts from 'typescript';

/** What makes a test one that is not run, or is glad to fail. */
const NOT_RUN = new Set(['skip', 'todo', 'fails']);

/** `it.each(rows)` is `it` and `each`; empty for what is no call of that kind. */
function chainOf(node: ts.Expression): string[] {
  if (ts.isIdentifier(node)) return [node.text];
  if (ts.isPropertyAccessExpression(node)) return [...chainOf(node.expression), node.name.text];
  if (ts.isCallExpression(node)) return chainOf(node.expression);
  if (ts.isTaggedTemplateExpression(node)) return chainOf(node.tag);
  return [];
}

/** The text of a title up to its first value that is not written there. */
function titleOf(node: ts.Expression | undefined): string | null {
  if (node === undefined) return null;
  if (ts.isStringLiteralLike(node)) return node.text;
  return ts.isTemplateExpression(node) ? node.head.text : null;
}

/** Where a title of `each` gets a value. */
const PLACEHOLDER = /%[a-zA-Z#]|\$[\w.]+/;

/** What a title of `each` may become with the texts of its rows; the rest of it, after the first of them, is left out. */
function withRows(title: string, callee: ts.Expression): string[] {
  const [head = ''] = title.split(PLACEHOLDER);
  if (head === title || !ts.isCallExpression(callee)) return [];
  const texts: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isStringLiteralLike(node)) texts.push(head + node.text);
    ts.forEachChild(node, visit);
  };
  callee.arguments.forEach(visit);
  return texts;
}

/** Of `it` and `test`: as they are written, and as rows of `each` make them. Empty where there is no file. */
export function testTitles(file: string): readonly string[] {
  const titles: string[] = [];
  const visit = (node: ts.Node): void => {
    if (ts.isCallExpression(node)) {
      const [root = '', ...more] = chainOf(node.expression);
      if (['it', 'test', 'describe'].includes(root) && more.some((one) => NOT_RUN.has(one))) return;
      const title = titleOf(node.arguments[0]);
      if (['it', 'test'].includes(root) && title !== null) titles.push(title, ...withRows(title, node.expression));
    }
    ts.forEachChild(node, visit);
  };
  visit(ts.createSourceFile(file, textOf(file), ts.ScriptTarget.Latest));
  return titles;
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
