/** Figures of the whole process that the relay's own figures hold too. */
import { readdirSync, statSync } from 'node:fs';

/** Bytes resident when the relay was loaded: what the program needs without any client. */
export const MEMORY_AT_START = process.memoryUsage.rss();

const OWN_DESCRIPTORS = '/proc/self/fd';

/** Descriptors that this process has open. */
export function fileDescriptors(): number {
  // Linux 6.2 and later say it here; counting takes milliseconds where there are many.
  const { size } = statSync(OWN_DESCRIPTORS);
  return size > 0 ? size : readdirSync(OWN_DESCRIPTORS).length - 1; // without the one that reads
}
