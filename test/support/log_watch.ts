import type { Logger } from 'derplane';
import { LineWatch } from './line_watch.js';

/** A logger whose lines can be waited for. */
export class LogWatch extends LineWatch implements Logger {
  constructor() {
    super('the log');
  }

  debug(_fields: object, message: string): void {
    this.add(`DEBUG ${message}`);
  }

  info(_fields: object, message: string): void {
    this.add(`INFO ${message}`);
  }

  warn(_fields: object, message: string): void {
    this.add(`WARN ${message}`);
  }

  error(_fields: object, message: string): void {
    this.add(`ERROR ${message}`);
  }
}
