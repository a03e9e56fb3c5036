/** Switches in the environment, as Go reads them. */
import { badOption } from './checks.js';

const TRUE = ['1', 't', 'T', 'true', 'TRUE', 'True'];
const FALSE = ['0', 'f', 'F', 'false', 'FALSE', 'False'];

/**
 * Whether a variable switches something on; absent and empty do not.
 *
 * @throws DerpError `ERR_DERP_BAD_OPTION` for a value that is not a boolean
 */
export function envBoolean(env: NodeJS.ProcessEnv, name: string): boolean {
  const value = env[name] ?? '';
  if (TRUE.includes(value)) return true;
  if (value === '' || FALSE.includes(value)) return false;
  throw badOption(`invalid boolean environment variable ${name} value ${JSON.stringify(value)}: must be true or false`);
}
