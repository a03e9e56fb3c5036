#include "native/core/timer_wheel.h"

#include <vector>

#include "check.h"

using namespace derplane;

namespace {

constexpr uint64_t kLongest = 65'000;
constexpr uint64_t kStart = 1'000'000'007;  // a clock that has run for long

struct Wheel {
  TimerWheel timers{kLongest};
  std::vector<Client*> fired;
  uint64_t now = kStart;

  void advance(uint64_t to) {
    now = to;
    fired.clear();
    timers.advance(now, [this](Client& client) { fired.push_back(&client); });
  }
  void set(Client& client, uint64_t at) { timers.set(client, now, at); }
  // Time at which the next timer fires, ticking as a shard does.
  uint64_t nextFire() {
    for (int i = 0; i < 1000; ++i) {
      advance(now + timers.tickMs());
      if (!fired.empty()) return now;
    }
    return 0;
  }
};

}  // namespace

TEST("a timer fires once, not before its time and at most two ticks after it") {
  for (const uint64_t after : {uint64_t{1}, uint64_t{100}, uint64_t{5'000}, uint64_t{60'000}, kLongest}) {
    Wheel wheel;
    Client client;
    wheel.advance(kStart);
    wheel.set(client, kStart + after);
    const uint64_t fired = wheel.nextFire();
    CHECK(fired >= kStart + after);
    CHECK(fired <= kStart + after + 2 * wheel.timers.tickMs());
    CHECK_EQ(wheel.timers.count(), 0u);
    CHECK_EQ(client.timer_bucket, UINT32_MAX);
    CHECK_EQ(wheel.nextFire(), 0u);
  }
}

TEST("the first timer of a wheel is not early, though the wheel never heard the time before") {
  Wheel wheel;
  Client client;
  wheel.set(client, kStart + 60'000);
  const uint64_t fired = wheel.nextFire();
  CHECK(fired >= kStart + 60'000);
  CHECK(fired <= kStart + 60'000 + 2 * wheel.timers.tickMs());
}

TEST("a timer set after the wheel was empty for long is not early") {
  for (const uint64_t idle : {uint64_t{30'000}, uint64_t{61'000}, uint64_t{10'000'000}}) {
    Wheel wheel;
    Client first, second;
    wheel.set(first, kStart + 1'000);
    wheel.nextFire();
    wheel.now += idle;  // nobody ticks an empty wheel
    const uint64_t set_at = wheel.now;
    wheel.set(second, set_at + 60'000);
    const uint64_t fired = wheel.nextFire();
    CHECK(fired >= set_at + 60'000);
    CHECK(fired <= set_at + 60'000 + 2 * wheel.timers.tickMs());
  }
}

TEST("a cancelled timer never fires, from any place of its bucket's list") {
  for (size_t cancelled = 0; cancelled < 3; ++cancelled) {
    Wheel wheel;
    Client clients[3];
    for (Client& client : clients) wheel.set(client, kStart + 10'000);
    wheel.timers.cancel(clients[cancelled]);
    wheel.timers.cancel(clients[cancelled]);
    CHECK_EQ(wheel.timers.count(), 2u);
    wheel.nextFire();
    CHECK_EQ(wheel.fired.size(), 2u);
    for (const Client* client : wheel.fired) CHECK(client != &clients[cancelled]);
  }
}

TEST("setting a timer again replaces it") {
  Wheel wheel;
  Client client;
  wheel.set(client, kStart + 50'000);
  wheel.set(client, kStart + 10'000);
  CHECK_EQ(wheel.timers.count(), 1u);
  CHECK(wheel.nextFire() <= kStart + 10'000 + 2 * wheel.timers.tickMs());
  CHECK_EQ(wheel.nextFire(), 0u);
}

TEST("what fires may be set again and comes again, also after a sleep of many revolutions") {
  TimerWheel timers(kLongest);
  std::vector<Client> clients(100);
  uint64_t now = kStart;
  for (Client& client : clients) timers.set(client, now, now + 60'000);
  uint32_t fires = 0;
  const auto again = [&](Client& client) {
    ++fires;
    timers.set(client, now, now + 60'000);
  };
  for (const uint64_t step : {uint64_t{61'000}, uint64_t{62'000}, uint64_t{100'000'000}, uint64_t{61'500}}) {
    fires = 0;
    now += step;
    timers.advance(now, again);
    CHECK_EQ(fires, clients.size());
    CHECK_EQ(timers.count(), clients.size());
  }
}

TEST("random timers each fire once, none early") {
  check::Random random(3);
  Wheel wheel;
  std::vector<Client> clients(500);
  std::vector<uint64_t> due(clients.size());
  for (uint32_t step = 0; step < 2000; ++step) {
    for (uint32_t n = random.below(4); n > 0; --n) {
      const uint32_t i = random.below(static_cast<uint32_t>(clients.size()));
      due[i] = wheel.now + random.below(65'000);
      wheel.set(clients[i], due[i]);
    }
    wheel.advance(wheel.now + random.below(700));
    for (const Client* client : wheel.fired) {
      const auto i = static_cast<size_t>(client - clients.data());
      CHECK(due[i] != 0);
      CHECK(due[i] <= wheel.now);
      due[i] = 0;
    }
    for (const uint64_t at : due) CHECK(at == 0 || at + 2 * wheel.timers.tickMs() > wheel.now);
  }
}
