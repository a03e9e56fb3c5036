/** Reads Prometheus' text format, strictly: what it does not understand is an error. */

export interface Family {
  type: string;
  help: string;
  /** By name and labels, as they stand in the text. */
  samples: Map<string, number>;
}

const TYPES = ['counter', 'gauge', 'histogram', 'summary', 'untyped'];
const SAMPLE =
  /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*"(?:,[a-zA-Z_][a-zA-Z0-9_]*="[^"\\]*")*\})? (\S+)$/;

export function parsePrometheus(text: string): Map<string, Family> {
  const families = new Map<string, Family>();
  let name = '';
  let help: string | undefined;
  for (const line of text.split('\n')) {
    if (line === '') continue;
    const [, helpName, helpText] = line.match(/^# HELP (\S+) (.+)$/) ?? [];
    const [, typeName, type] = line.match(/^# TYPE (\S+) (\S+)$/) ?? [];
    if (helpName !== undefined) {
      if (families.has(helpName)) throw new Error(`${helpName} stands there twice`);
      name = helpName;
      help = helpText;
    } else if (typeName !== undefined) {
      if (typeName !== name || help === undefined || !TYPES.includes(type!))
        throw new Error(`TYPE out of place: ${line}`);
      families.set(name, { type: type!, help, samples: new Map() });
      help = undefined;
    } else {
      addSample(families.get(name), name, line);
    }
  }
  for (const [family, { type, samples }] of families) if (type === 'histogram') checkHistogram(family, samples);
  return families;
}

function addSample(family: Family | undefined, name: string, line: string): void {
  const [, sampleName, labels = '', valueText] = line.match(SAMPLE) ?? [];
  if (sampleName === undefined) throw new Error(`no sample: ${line}`);
  const allowed = family?.type === 'histogram' || family?.type === 'summary' ? ['_bucket', '_sum', '_count', ''] : [''];
  if (family === undefined || !allowed.some((suffix) => sampleName === name + suffix)) {
    throw new Error(`a sample of another family than ${name}: ${line}`);
  }
  const value = valueText === '+Inf' ? Number.POSITIVE_INFINITY : valueText === 'Nan' ? Number.NaN : Number(valueText);
  if (Number.isNaN(value) && valueText !== 'Nan') throw new Error(`no number: ${line}`);
  if (family.samples.has(sampleName + labels)) throw new Error(`stands there twice: ${line}`);
  family.samples.set(sampleName + labels, value);
}

/** Buckets must rise with their bounds, and the last must hold everything; with labels, only those without are looked at. */
function checkHistogram(name: string, samples: Map<string, number>): void {
  let last = 0;
  for (const [key, value] of samples) {
    if (!/_bucket\{le="[^"]+"\}$/.test(key)) continue;
    if (value < last) throw new Error(`${key} holds less than the bucket before it`);
    last = value;
  }
  const count = samples.get(`${name}_count`);
  if (count !== undefined && samples.get(`${name}_bucket{le="+Inf"}`) !== count)
    throw new Error(`${name}: +Inf is not count`);
}
