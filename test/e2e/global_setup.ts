import { buildPrograms } from './programs.js';

/** Builds the programs in Go before any test. */
export default buildPrograms;
