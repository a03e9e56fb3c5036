/** Exit codes of a program that a signal ends, as shells report them. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;

/** Resolves with the first SIGTERM or SIGINT; a second one, of either kind, ends the process at once. */
export function nextSignal(): Promise<keyof typeof EXIT_CODES> {
  return new Promise((resolve) => {
    let seen = false;
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      process.on(signal, () => {
        if (seen) process.exit(EXIT_CODES[signal]);
        seen = true;
        resolve(signal);
      });
    }
  });
}
