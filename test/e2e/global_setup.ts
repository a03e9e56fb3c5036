import compile from '../support/global_setup.js';
import { buildPrograms } from './programs.js';

/** Compiles src and builds the programs in Go before any test. */
export default async function setup(): Promise<void> {
  compile();
  await buildPrograms();
}
