/** Paths written as file URLs. */
import { fileURLToPath } from 'node:url';

/** The absolute path; null for what is no `file:///path` of this machine, or is broken: bad escapes, a `/` or NUL among them. */
export function pathOfFileUrl(text: string): string | null {
  if (!/^file:\/\/\/[^/]/.test(text)) return null;
  try {
    const path = fileURLToPath(text);
    return path.includes('\0') ? null : path;
  } catch {
    return null;
  }
}
