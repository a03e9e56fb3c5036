/** The part of pino's interface that derplane uses; a pino logger fits, and so does `console`. */
export interface Logger {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}

/** A logger that drops everything. */
export const silentLogger: Logger = { debug() {}, info() {}, warn() {}, error() {} };

/** Milliseconds between two warnings about one logger that fails. */
const WARNING_INTERVAL = 60_000;

/** An embedder's logger, whose failures, thrown or by a rejected promise, cost lines and nothing else. */
export function guardedLogger(logger: Logger | undefined): Logger {
  if (logger === undefined) return silentLogger;
  let lost = 0;
  let quietUntil = 0;
  const failed = (error: unknown) => {
    lost++;
    if (performance.now() < quietUntil) return;
    quietUntil = performance.now() + WARNING_INTERVAL;
    process.emitWarning(`derplane: the logger fails, lines lost: ${lost}: ${(error as Error)?.message ?? error}`);
  };
  const guard = (level: keyof Logger) => (fields: object, message: string) => {
    try {
      const result: unknown = logger[level](fields, message);
      if (result instanceof Promise) result.catch(failed);
    } catch (error) {
      failed(error);
    }
  };
  return { debug: guard('debug'), info: guard('info'), warn: guard('warn'), error: guard('error') };
}
