/**
 * Explores the wake-ups between shards: `node test/native/explore.mjs [--only NAME]`.
 *
 * Runs the real rings, slots and routers under the scheduler of explore/explore.h, which goes through all schedules and all values
 * that loads may see, within a bound. Then breaks the code in one place after the other, and expects that the explorer finds it:
 * each entry of MUTANTS is a test that the explorer sees that kind of fault. `--only NAME` runs the scenarios or mutants whose name
 * contains NAME, and prints the steps that lead to a mutant's fault.
 */
import { parseArgs } from 'node:util';
import { Builder, FLAGS, IO_SOURCES, inParallel, run, sources } from './build.mjs';

/** An exploration that runs longer than this does not end. */
const RUN_LIMIT_MS = 300_000;

const RING = 'native/core/ring.cc';
const SLOT = 'native/io/relay_core.cc';
const RING_FENCE = '  fullFence();\n';

/** Which scenario shows what is broken in a file: part of its name. */
const SCENARIO_OF = { [RING]: 'a ring of four', [SLOT]: 'about to sleep' };

/** What is broken, in which file, and how: pairs of texts, each found once after the text `after`. */
const MUTANTS = [
  {
    name: 'whoever finds room takes the flag from the others that wait',
    scenario: 'clients and a notice',
    file: RING,
    edits: [
      {
        after: 'bool RingProducer::waitForRoom',
        find: 'if (room() >= need) return false;',
        put: 'if (room() >= need) {\n    memory_.shared->waits.store(0, std::memory_order_relaxed);\n    return false;\n  }',
      },
      {
        after: 'bool RingConsumer::moveTail',
        find: 'return memory_.shared->waits.load(std::memory_order_relaxed) != 0;',
        put: 'return memory_.shared->waits.exchange(0, std::memory_order_relaxed) != 0;',
      },
    ],
  },
  {
    name: 'no fence where the producer waits',
    file: RING,
    edits: [{ after: 'bool RingProducer::waitForRoom', find: RING_FENCE, put: '' }],
  },
  {
    name: 'no fence where the consumer moves its tail',
    file: RING,
    edits: [{ after: 'bool RingConsumer::moveTail', find: RING_FENCE, put: '' }],
  },
  {
    name: 'the flag is not set',
    file: RING,
    edits: [{ after: 'bool RingProducer::waitForRoom', find: 'waits.store(1,', put: 'waits.store(0,' }],
  },
  {
    name: 'a head that releases nothing',
    file: RING,
    edits: [{ after: 'bool RingProducer::publish', find: 'memory_order_release', put: 'memory_order_relaxed' }],
  },
  {
    name: 'a head that is not acquired',
    file: RING,
    edits: [{ after: 'RingRecord* RingConsumer::next', find: 'memory_order_acquire', put: 'memory_order_relaxed' }],
  },
  {
    name: 'a tail that releases nothing',
    file: RING,
    edits: [{ after: 'bool RingConsumer::moveTail', find: 'memory_order_release', put: 'memory_order_relaxed' }],
  },
  {
    name: 'a tail that is not acquired',
    file: RING,
    edits: [{ after: 'RingRecord* RingProducer::reserve', find: 'memory_order_acquire', put: 'memory_order_relaxed' }],
  },
  {
    name: 'a note of the tail told before the wake-up',
    file: RING,
    edits: [
      {
        after: 'bool RingConsumer::moveTail',
        find: RING_FENCE,
        put: `  told();\n${RING_FENCE}`,
      },
    ],
  },
  {
    name: 'a note of the tail told that is not acquired',
    file: RING,
    edits: [{ after: 'bool RingProducer::roomWasMade', find: 'memory_order_acquire', put: 'memory_order_relaxed' }],
  },
  {
    name: 'no fence before the look for a sleeper',
    file: SLOT,
    edits: [{ after: 'bool ShardSlot::raise', find: RING_FENCE, put: '' }],
  },
  {
    name: 'no fence before sleep',
    file: SLOT,
    edits: [{ after: 'bool ShardSlot::trySleep', find: RING_FENCE, put: '' }],
  },
  { name: 'no fence after mail', file: SLOT, edits: [{ after: 'bool ShardSlot::post', find: RING_FENCE, put: '' }] },
  {
    name: 'a sleeper that does not look for room',
    file: SLOT,
    edits: [
      { after: 'bool ShardSlot::trySleep', find: 'room_bits_.load(std::memory_order_relaxed) == 0', put: 'true' },
    ],
  },
];

const { values: options } = parseArgs({ options: { only: { type: 'string' } } });

try {
  process.exit(await main());
} catch (error) {
  console.error(`explore.mjs: ${error.message}`);
  process.exit(1);
}

async function main() {
  const builder = new Builder([...FLAGS, '-DDERPLANE_EXPLORE', '-I', 'test/native'], 'explore');
  const files = [
    ...sources('native/core'),
    ...IO_SOURCES,
    ...sources('test/native/explore'),
    'test/native/check.cc',
    'test/native/relay_model.cc',
  ];
  const objects = new Map();
  await inParallel(files, async (file) => objects.set(file, await builder.compile(file)));
  const mutants = MUTANTS.filter(({ name }) => options.only === undefined || name.includes(options.only));
  const healthy = async () => runHealthy(await builder.link('explore', [...objects.values()]));
  const broken = mutants.map((mutant) => async () => {
    const object = await builder.compile(mutant.file, (text) => mutant.edits.reduce(edit, text));
    const all = files.map((file) => (file === mutant.file ? object : objects.get(file)));
    return runMutant(mutant, await builder.link('mutant', all));
  });
  const results = await inParallel(mutants.length > 0 && options.only ? broken : [healthy, ...broken], (test) =>
    test(),
  );
  const passed = results.reduce((sum, result) => sum + result.passed, 0);
  const failed = results.reduce((sum, result) => sum + result.failed, 0);
  console.log(`${passed} passed, ${failed} failed`);
  return failed === 0 && passed > 0 ? 0 : 1;
}

function edit(text, { after, find, put }) {
  const start = text.indexOf(after);
  const at = text.indexOf(find, start);
  const end = text.indexOf('\n}\n', start);
  if (start < 0 || at < 0 || at > end) throw new Error(`there is no "${find.trim()}" in "${after}": adapt MUTANTS`);
  return text.slice(0, at) + put + text.slice(at + find.length);
}

async function runHealthy(program) {
  const { status, output } = await run(program, options.only === undefined ? [] : [options.only], {
    timeout: RUN_LIMIT_MS,
  });
  console.log(output.trimEnd());
  const passed = (output.match(/^ok /gm) ?? []).length;
  const failed = (output.match(/^not ok /gm) ?? []).length;
  return { passed, failed: status !== 0 && failed === 0 ? 1 : failed };
}

async function runMutant({ name, file, scenario = SCENARIO_OF[file] }, program) {
  const { output } = await run(program, [scenario], { timeout: RUN_LIMIT_MS });
  const found = /lost wake-up|races with|out of order/.exec(output);
  console.log(`${found ? 'ok' : 'not ok'} the explorer finds: ${name}${found ? '' : '. It did not'}`);
  if (options.only !== undefined || !found) console.log(output.trimEnd());
  return { passed: found ? 1 : 0, failed: found ? 0 : 1 };
}
