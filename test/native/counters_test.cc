#include "native/core/counters.h"

#include <cstring>
#include <set>
#include <string>

#include "check.h"

using namespace derplane;

namespace {

std::string name(uint32_t i) {
  char text[128];
  counterName(i, text, sizeof text);
  return text;
}

}  // namespace

TEST("every counter has a name of its own") {
  std::set<std::string> seen;
  for (uint32_t i = 0; i < kCounterCount; ++i) {
    CHECK(!name(i).empty());
    CHECK(seen.insert(name(i)).second);
  }
}

TEST("drops are named by reason and kind, closes by reason") {
  CHECK_EQ(name(0), "packets_received");
  CHECK_EQ(name(kDropPacketsBase), "packets_dropped.unknown_dest.other");
  CHECK_EQ(name(kDropPacketsBase + 1), "packets_dropped.unknown_dest.disco");
  CHECK_EQ(name(kDropBytesBase - 1), "packets_dropped.dup_client.disco");
  CHECK_EQ(name(kDropBytesBase), "bytes_dropped.unknown_dest.other");
  CHECK_EQ(name(kCloseBase), "closed.eof");
  CHECK_EQ(name(kRttBase - 1), "closed.no_memory");
  CHECK_EQ(name(kRttBase), "tcp_rtt.10ms");
  CHECK_EQ(name(kHistogramBase), "buffered_write_frames.le.0");
  CHECK_EQ(name(kLabelBase - 1), "mesh_update_loop_count.sum");
  CHECK_EQ(name(kLabelBase), "label.1.clients");
  CHECK_EQ(name(kCounterCount - 1), "label.64.limit_waited");
}

TEST("a name never leaves the room that it is given") {
  char text[8];
  std::memset(text, 'x', sizeof text);
  counterName(kDropPacketsBase, text, 4);
  CHECK_EQ(std::string(text), "pac");
  CHECK_EQ(text[4], 'x');
}

TEST("each counter, drop and close moves exactly its own value") {
  int64_t values[kCounterCount] = {};
  Counters counters(values);
  for (uint32_t i = 0; i < static_cast<uint32_t>(Counter::count); ++i) {
    counters.add(static_cast<Counter>(i), 3);
    CHECK_EQ(values[i], 3);
    counters.add(static_cast<Counter>(i), -3);
    CHECK_EQ(values[i], 0);
  }
  counters.drop(DropReason::queue_head, true, 100);
  counters.drop(DropReason::queue_head, true, 7);
  counters.drop(DropReason::dup_client, false, 0);
  CHECK_EQ(counters.dropped(DropReason::queue_head, true), 2);
  CHECK_EQ(counters.dropped(DropReason::queue_head, false), 0);
  CHECK_EQ(counters.dropped(DropReason::dup_client, false), 1);
  counters.closed(CloseReason::no_memory);
  int64_t sum = 0;
  for (const int64_t v : values) sum += v;
  CHECK_EQ(sum, 2 + 107 + 1 + 0 + 1);
  CHECK_EQ(values[kRttBase - 1], 1);
  for (uint32_t i = 0; i < kCounterCount; ++i) {
    if (name(i) == "bytes_dropped.queue_head.disco") CHECK_EQ(values[i], 107);
  }
}
