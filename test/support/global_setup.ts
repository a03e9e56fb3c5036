import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { TestProject } from 'vitest/node';
import { makeCertificate } from './certificates.js';

declare module 'vitest' {
  interface ProvidedContext {
    /** PEM texts: who relays behind TLS are. */
    relayCertificate: { cert: string; key: string };
  }
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/** Once a run: compiles src to dist, so that no run ever tests a stale build, and makes the relays' certificate. */
export default async function setup(project: TestProject): Promise<void> {
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const { status, stdout, stderr } = spawnSync(process.execPath, [tsc, '-p', 'tsconfig.json'], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(`src does not compile, so there is nothing to test:\n${stdout}${stderr}`);
  removeOrphans();
  const { cert, keyPem: key } = await makeCertificate({ names: ['relay.test', '127.0.0.1', '::1'] });
  project.provide('relayCertificate', { cert, key });
}

/** Removes what earlier builds left for sources that are gone. */
function removeOrphans(): void {
  for (const entry of readdirSync(join(root, 'dist'), { recursive: true, encoding: 'utf8' })) {
    const stem = entry.match(/^(.*?)\.(?:js|d\.ts|js\.map)$/)?.[1];
    if (stem !== undefined && !existsSync(join(root, 'src', `${stem}.ts`))) rmSync(join(root, 'dist', entry));
  }
}
