/** The metrics in Prometheus' text format. */
import { type Metric as ClientMetric, Registry } from 'prom-client';
import type { Stats } from '../server/stats.js';
import { processRegistry } from './metrics_process.js';
import { type Figures, METRICS, type Metric } from './metrics_table.js';

/** Content-Type of {@link metricsText}. */
export const METRICS_TYPE = Registry.PROMETHEUS_CONTENT_TYPE;

interface Sample {
  metricName?: string;
  labels: Record<string, string>;
  value: number;
}

/** All metrics that have values, those of the process first. */
export async function metricsText(figures: Figures): Promise<string> {
  const registry = new Registry();
  for (const metric of METRICS) {
    const value = metric.value(figures);
    if (value !== undefined) registry.registerMetric(collected(metric, samples(metric, value)));
  }
  return `${await processRegistry().metrics()}\n${await registry.metrics()}`;
}

/**
 * What a registry asks a metric for. prom-client's own classes count; here the counting is done, and a histogram of theirs takes
 * single observations only.
 */
function collected({ name, type, help }: Metric, values: Sample[]): ClientMetric {
  const metric = { name, help, type, get: async () => ({ name, help, type, values, aggregator: 'sum' }) };
  return metric as unknown as ClientMetric;
}

function samples(metric: Metric, value: Stats | number): Sample[] {
  return metric.type === 'histogram' ? buckets(metric.name, value as Stats) : labelled(metric.labels, value, {});
}

function buckets(name: string, { sum, count, ...bounds }: Stats): Sample[] {
  return [
    ...Object.entries(bounds).map(([le, value]) => ({
      metricName: `${name}_bucket`,
      labels: { le },
      value: value as number,
    })),
    { metricName: `${name}_sum`, labels: {}, value: sum as number },
    { metricName: `${name}_count`, labels: {}, value: count as number },
  ];
}

function labelled([name, ...rest]: string[], value: Stats | number, labels: Record<string, string>): Sample[] {
  if (typeof value === 'number' || name === undefined) return [{ labels, value: value as number }];
  return Object.entries(value).flatMap(([label, inner]) => labelled(rest, inner, { ...labels, [name]: label }));
}
