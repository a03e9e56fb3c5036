import { DerpError } from '../errors.js';

/** What is served at `/` and at every unknown path. */
export type HomePage =
  | { type: 'html'; body: string; bodyForDebuggers: string }
  | { type: 'redirect'; url: string }
  | { type: 'none' };

/**
 * Reads the value of `-home`: empty for the default page, `blank`, `none`, or an http(s) URL to redirect to.
 *
 * @param derp - whether the relay serves DERP; the default page says so
 * @throws {@link DerpError} `ERR_DERP_BAD_OPTION` for anything else
 */
export function homePage(home: string, derp: boolean): HomePage {
  if (home === '') return { type: 'html', body: defaultPage(derp, false), bodyForDebuggers: defaultPage(derp, true) };
  if (home === 'blank') return { type: 'html', body: '', bodyForDebuggers: '' };
  if (home === 'none') return { type: 'none' };
  if (/^https?:\/\//.test(home) && URL.canParse(home)) return { type: 'redirect', url: new URL(home).href };
  throw new DerpError(
    'ERR_DERP_BAD_OPTION',
    `unknown --home value ${JSON.stringify(home)}: leave it empty, or give "blank", "none" or an http:// or https:// URL`,
  );
}

/** @param debug - links to the debug pages */
function defaultPage(derp: boolean, debug: boolean): string {
  const state = derp
    ? '<p>This is a DERP server: it relays encrypted packets between Tailscale nodes that cannot reach each other directly.</p>'
    : '<p>This is a DERP server whose relay is disabled.</p>';
  return `<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>DERP</title></head>
<body>
<h1>DERP</h1>
${state}${debug ? '\n<p>Debug pages: <a href="/debug/">/debug/</a></p>' : ''}
</body>
</html>
`;
}
