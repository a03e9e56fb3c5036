import { expect } from 'vitest';

/** The one line in which `read` refuses a certificate or key, which shows nothing of either; `read` when it does not. */
export function refusalOf(read: () => unknown): string {
  try {
    read();
  } catch (error) {
    expect(error).toMatchObject({ code: 'ERR_DERP_CERTIFICATE' });
    const { message } = error as Error;
    expect(message).not.toContain('\n');
    expect(message).not.toMatch(/MI[A-Za-z0-9+/]{20}/); // no key, no certificate
    return message;
  }
  return 'read';
}
