#include "native/core/step_table.h"

#include <map>
#include <string>

#include "check.h"

using namespace derplane;

namespace {

struct Entry {
  uint64_t hash;
  uint32_t number;  // 0: empty
};

struct Traits {
  using Entry = ::Entry;
  static constexpr size_t kMaxLoadQuarters = 3;
  bool isEmpty(const Entry& entry) const { return entry.number == 0; }
  uint64_t hashOf(const Entry& entry) const { return entry.hash; }
};

using Table = StepTable<Traits>;

Entry* find(const Table& table, uint64_t hash, uint32_t number) {
  return table.find(hash, [number](const Entry& entry) { return entry.number == number; });
}

}  // namespace

TEST("after any history the table holds the same entries as std::map, while its size changes too") {
  for (uint64_t seed = 1; seed <= 6; ++seed) {
    check::note("seed " + std::to_string(seed));
    check::Random random(seed);
    Table table;
    std::map<uint32_t, uint64_t> model;
    // Few distinct hashes make long runs, which wrap round the end.
    const uint32_t hashes = seed % 2 == 0 ? 1 << 30 : 2000;
    for (uint32_t wave = 0; wave < 8; ++wave) {
      const bool grow = wave % 2 == 0;
      for (uint32_t i = 0; i < 12'000; ++i) {
        const uint32_t number = 1 + random.below(8'000);
        const auto it = model.find(number);
        if (it != model.end()) {
          Entry* entry = find(table, it->second, number);
          CHECK(entry != nullptr && entry->hash == it->second);
          if (grow && !random.oneIn(4)) continue;
          table.erase(entry);
          CHECK(find(table, it->second, number) == nullptr);
          model.erase(it);
        } else if (grow || random.oneIn(8)) {
          const uint64_t hash = uint64_t{random.below(hashes)} * 0x9e3779b97f4a7c15;
          CHECK(table.insert(hash, {hash, number}).number == number);
          model[number] = hash;
        }
        if (random.oneIn(50)) table.step(random.below(200));
      }
      CHECK_EQ(table.size(), model.size());
      size_t visited = 0;
      table.forEach([&](const Entry& entry) { visited += model.at(entry.number) == entry.hash ? 1u : 0u; });
      CHECK_EQ(visited, model.size());
    }
    if (check::failures() > 0) return;
  }
}

TEST("entries are visited in bounded steps, each once") {
  Table table;
  for (uint32_t n = 1; n <= 3000; ++n) table.insert(n, {n, n});
  size_t at = 0, steps = 0, visited = 0;
  do {
    size_t now = 0;
    at = table.forEachFrom(at, 100, [&](const Entry&) { ++now; });
    CHECK(now <= 100);
    visited += now;
    ++steps;
  } while (at != 0);
  CHECK_EQ(visited, 3000u);
  CHECK(steps >= 40);
}
