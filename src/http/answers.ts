import { type IncomingMessage, type ServerResponse, STATUS_CODES } from 'node:http';
import { setSecurityHeaders } from './security_headers.js';

/** Whether the request only reads. */
export function isRead(request: IncomingMessage): boolean {
  return request.method === 'GET' || request.method === 'HEAD';
}

/** A page for browsers, for every method, as in derper. */
export function sendPage(response: ServerResponse, type: string, body: string): void {
  setSecurityHeaders(response);
  response.writeHead(200, { 'Content-Type': type, 'Content-Length': Buffer.byteLength(body) }).end(body);
}

/** An answer without a body. */
export function sendEmpty(response: ServerResponse, status: number): void {
  response.writeHead(status, { 'Content-Length': 0 }).end();
}

/** An error, as a line of text. */
export function sendText(response: ServerResponse, status: number, text: string): void {
  const body = `${text}\n`;
  response.writeHead(status, {
    'Content-Type': 'text/plain; charset=utf-8',
    'X-Content-Type-Options': 'nosniff',
    'Content-Length': Buffer.byteLength(body),
  });
  response.end(body);
}

export function sendRedirect(
  request: IncomingMessage,
  response: ServerResponse,
  status: 302 | 307,
  location: string,
): void {
  const body = isRead(request) ? `<a href="${escapeHtml(location)}">${STATUS_CODES[status]}</a>.\n\n` : '';
  if (body !== '') response.setHeader('Content-Type', 'text/html; charset=utf-8');
  response.writeHead(status, { Location: location, 'Content-Length': Buffer.byteLength(body) }).end(body);
}

export function escapeHtml(text: string): string {
  return text.replace(/[&<>"']/g, (char) => `&#${char.charCodeAt(0)};`);
}
