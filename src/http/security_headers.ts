import type { ServerResponse } from 'node:http';

const CONTENT_SECURITY_POLICY = [
  "default-src 'self'",
  "frame-ancestors 'none'",
  "form-action 'self'",
  "base-uri 'self'",
  'block-all-mixed-content',
  "object-src 'none'",
].join('; ');

/** Sets what every page for browsers carries, on plain HTTP too: a proxy in front may speak TLS. */
export function setSecurityHeaders(response: ServerResponse): void {
  response.setHeader('Strict-Transport-Security', 'max-age=63072000; includeSubDomains');
  response.setHeader('X-Frame-Options', 'DENY');
  response.setHeader('X-Content-Type-Options', 'nosniff');
  response.setHeader('Content-Security-Policy', CONTENT_SECURITY_POLICY);
}
