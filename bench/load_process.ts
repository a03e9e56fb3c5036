/** The process that is the load: gets one `Load` over IPC, answers one `LoadAnswer`, ends. */
import autocannon from 'autocannon';
import { addon, type HttpLoad, type HttpResult, type Load, type LoadAnswer } from './load.js';

// The bench has gone, or has its answer.
process.once('disconnect', () => process.exit());
process.once('message', async (load: Load) => {
  const answer = await run(load).then(
    (result): LoadAnswer => ({ result }),
    (error: Error): LoadAnswer => ({ error: error.message }),
  );
  process.send?.(answer, () => process.disconnect());
});

function run(load: Load): Promise<unknown> {
  return load.mode === 'http' ? runHttp(load) : addon.run(load);
}

async function runHttp(load: HttpLoad): Promise<HttpResult> {
  const { url, connections, rate, warmup, duration } = load;
  const pace = { url, connections, ...(rate !== undefined && { overallRate: rate }) };
  if (warmup !== undefined) await autocannon({ ...pace, duration: warmup / 1000 });
  const relayCpu = addon.cpuNanos(load.relayPid);
  const loadCpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  const result = await autocannon({ ...pace, duration: duration / 1000 });
  const used = process.cpuUsage(loadCpu);
  return {
    durationNanos: Number(process.hrtime.bigint() - start),
    relayCpuNanos: addon.cpuNanos(load.relayPid) - relayCpu,
    loadCpuNanos: (used.user + used.system) * 1000,
    requests: result.requests.total,
    failed: result.errors + result.timeouts + result.non2xx,
  };
}
