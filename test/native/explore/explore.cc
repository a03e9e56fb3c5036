#include "explore.h"

#include <sys/mman.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdlib>

namespace explore {
namespace {

constexpr uint32_t kMaxLocations = 64;
constexpr size_t kStackSize = 256 << 10;
// A run with more operations does not end.
constexpr uint32_t kMaxSteps = 20'000;

// By location: the first of its values that may still be seen.
struct View {
  uint32_t first[kMaxLocations] = {};

  void join(const View& other) {
    for (uint32_t i = 0; i < kMaxLocations; ++i) first[i] = std::max(first[i], other.first[i]);
  }
};

struct Message {
  uint64_t value;
  View view;  // what whoever acquires it knows
};

struct Location {
  const void* address;
  std::vector<Message> messages;
};

struct Thread {
  ucontext_t context;
  std::function<void()> body;
  View now;       // what its loads must respect
  View acquired;  // what an acquire fence would add: of relaxed loads
  View released;  // what relaxed stores pass on: of the last fence
  std::function<bool()> until;
  bool waits = false;
  bool ended = false;
};

struct Choice {
  uint32_t taken;
  uint32_t count;
};

bool acquires(std::memory_order order) {
  return order == std::memory_order_acquire || order == std::memory_order_acq_rel;
}
bool releases(std::memory_order order) {
  return order == std::memory_order_release || order == std::memory_order_acq_rel;
}

char* stackOf(size_t thread) {
  static std::vector<char*> stacks;
  while (stacks.size() <= thread) {
    void* p = ::mmap(nullptr, kStackSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) std::abort();
    stacks.push_back(static_cast<char*>(p));
  }
  return stacks[thread];
}

class Run {
 public:
  Run(std::vector<Choice>& path, uint32_t deviations, bool traced)
      : path_(path), deviations_left_(deviations), traced_(traced) {}

  std::string execute(Case& c);

  uint64_t load(const void* address, uint64_t newest, std::memory_order order);
  void store(const void* address, uint64_t newest, uint64_t value, std::memory_order order);
  uint64_t update(const void* address, uint64_t newest, const std::function<uint64_t(uint64_t)>& change,
                  std::memory_order order);
  void fence();
  bool blockUntil(const std::function<bool()>& condition);
  void reads(const void* memory);
  void writes(const void* memory);
  void fail(const std::string& what) {
    if (failure_.empty()) failure_ = what;
    over_ = true;
  }
  bool over() const { return over_; }
  // Of code that runs beside the threads: before, after, or within the explorer itself.
  bool idle() const { return over_ || current_ == nullptr; }

 private:
  Thread& me() { return *current_; }
  uint32_t numberOf(const Thread& thread) const { return static_cast<uint32_t>(&thread - threads_.data()); }
  uint32_t locationOf(const void* address, uint64_t newest);
  void append(uint32_t location, uint64_t value, std::memory_order order, const View* read);
  uint32_t choose(uint32_t count);
  bool canRun(Thread& thread) { return !thread.ended && (!thread.waits || thread.until()); }
  void step();
  void leave();
  void switchTo(Thread* next);
  void trace(const std::string& what);
  std::string nameOf(const void* address) const;
  static void enter();

  std::vector<Choice>& path_;
  size_t depth_ = 0;
  uint32_t deviations_left_;
  bool traced_;
  std::vector<Thread> threads_;
  Thread* current_ = nullptr;
  ucontext_t main_ = {};
  std::vector<Location> locations_;
  View fences_;  // what all full fences so far know
  std::vector<std::pair<const void*, std::string>> names_;
  std::string trace_;
  std::string failure_;
  uint32_t steps_ = 0;
  bool over_ = false;
};

Run* run = nullptr;

std::string Run::execute(Case& c) {
  run = this;
  names_ = c.names();
  threads_.resize(c.threads.size());
  for (size_t i = 0; i < threads_.size(); ++i) {
    threads_[i].body = c.threads[i];
    ::getcontext(&threads_[i].context);
    threads_[i].context.uc_stack.ss_sp = stackOf(i);
    threads_[i].context.uc_stack.ss_size = kStackSize;
    threads_[i].context.uc_link = nullptr;
    ::makecontext(&threads_[i].context, &Run::enter, 0);
  }
  switchTo(&threads_[choose(static_cast<uint32_t>(threads_.size()))]);
  over_ = true;  // no thread can go on
  if (failure_.empty()) failure_ = c.verdict();
  for (Thread& thread : threads_) {
    if (!thread.ended) switchTo(&thread);
  }
  run = nullptr;
  return failure_.empty() ? "" : failure_ + "\n" + trace_;
}

void Run::enter() {
  Thread& thread = run->me();
  thread.body();
  thread.ended = true;
  run->trace("ends");
  run->leave();
}

void Run::switchTo(Thread* next) {
  ucontext_t* from = current_ == nullptr ? &main_ : &current_->context;
  current_ = next;
  ::swapcontext(from, next == nullptr ? &main_ : &next->context);
}

uint32_t Run::choose(uint32_t count) {
  if (count <= 1) return 0;
  if (depth_ == path_.size()) path_.push_back({0, count});
  return path_[depth_++].taken;
}

// Before each operation: another thread may go first.
void Run::step() {
  if (++steps_ > kMaxSteps) {
    fail("the run does not end");
    return;
  }
  if (deviations_left_ == 0) return;
  Thread* others[16];
  uint32_t count = 0;
  for (Thread& thread : threads_) {
    if (&thread != current_ && canRun(thread)) others[count++] = &thread;
  }
  const uint32_t choice = choose(count + 1);
  if (choice == 0) return;
  --deviations_left_;
  switchTo(others[choice - 1]);
}

// This thread cannot go on: another one does, or the run is over.
void Run::leave() {
  Thread* ready[16];
  uint32_t count = 0;
  if (!over_) {
    for (Thread& thread : threads_) {
      if (canRun(thread)) ready[count++] = &thread;
    }
  }
  switchTo(count == 0 ? nullptr : ready[choose(count)]);
}

bool Run::blockUntil(const std::function<bool()>& condition) {
  if (over_) return false;
  me().waits = true;
  me().until = condition;
  trace("waits");
  leave();
  me().waits = false;
  if (!over_) trace("goes on");
  return !over_;
}

uint32_t Run::locationOf(const void* address, uint64_t newest) {
  for (uint32_t i = 0; i < locations_.size(); ++i) {
    if (locations_[i].address == address) return i;
  }
  if (locations_.size() == kMaxLocations) std::abort();
  locations_.push_back({address, {{newest, {}}}});
  return static_cast<uint32_t>(locations_.size() - 1);
}

uint64_t Run::load(const void* address, uint64_t newest, std::memory_order order) {
  step();
  const uint32_t location = locationOf(address, newest);
  const std::vector<Message>& messages = locations_[location].messages;
  const auto last = static_cast<uint32_t>(messages.size() - 1);
  const uint32_t older = deviations_left_ == 0 ? 0 : choose(last - me().now.first[location] + 1);
  if (older > 0) --deviations_left_;
  const Message& message = messages[last - older];
  me().now.first[location] = last - older;
  me().acquired.join(message.view);
  if (acquires(order)) me().now.join(message.view);
  if (traced_) trace(nameOf(address) + " is " + std::to_string(message.value) + (older > 0 ? ", which is old" : ""));
  return message.value;
}

void Run::append(uint32_t location, uint64_t value, std::memory_order order, const View* read) {
  std::vector<Message>& messages = locations_[location].messages;
  const auto at = static_cast<uint32_t>(messages.size());
  me().now.first[location] = at;
  View view = releases(order) ? me().now : me().released;
  if (read != nullptr) view.join(*read);  // a release sequence goes on
  view.first[location] = at;
  messages.push_back({value, view});
}

void Run::store(const void* address, uint64_t newest, uint64_t value, std::memory_order order) {
  step();
  if (traced_) trace(nameOf(address) + " = " + std::to_string(value));
  append(locationOf(address, newest), value, order, nullptr);
}

uint64_t Run::update(const void* address, uint64_t newest, const std::function<uint64_t(uint64_t)>& change,
                     std::memory_order order) {
  step();
  const uint32_t location = locationOf(address, newest);
  const Message old = locations_[location].messages.back();
  me().acquired.join(old.view);
  if (acquires(order)) me().now.join(old.view);
  if (traced_) {
    trace(nameOf(address) + " = " + std::to_string(change(old.value)) + ", was " + std::to_string(old.value));
  }
  append(location, change(old.value), order, &old.view);
  return old.value;
}

void Run::fence() {
  step();
  trace("fence");
  Thread& t = me();
  t.now.join(t.acquired);
  t.now.join(fences_);
  fences_ = t.released = t.now;
}

// Plain accesses are locations as well: one of the last write, one for each thread of its last read.
void Run::writes(const void* memory) {
  const auto* bytes = static_cast<const char*>(memory);
  for (uint32_t i = 0; i <= threads_.size(); ++i) {
    const uint32_t location = locationOf(bytes + i, 0);
    if (me().now.first[location] + 1 != locations_[location].messages.size()) {
      fail("a write races with another thread's " + std::string(i == 0 ? "write" : "read"));
    }
  }
  append(locationOf(bytes, 0), 0, std::memory_order_relaxed, nullptr);
}

void Run::reads(const void* memory) {
  const auto* bytes = static_cast<const char*>(memory);
  const uint32_t written = locationOf(bytes, 0);
  if (me().now.first[written] + 1 != locations_[written].messages.size())
    fail("a read races with another thread's write");
  append(locationOf(bytes + 1 + numberOf(me()), 0), 0, std::memory_order_relaxed, nullptr);
}

std::string Run::nameOf(const void* address) const {
  for (const auto& [known, name] : names_) {
    if (known == address) return name;
  }
  return "?";
}

void Run::trace(const std::string& what) {
  if (traced_) trace_ += "  thread " + std::to_string(numberOf(me())) + ": " + what + "\n";
}

}  // namespace

uint64_t load(const void* location, uint64_t newest, std::memory_order order) {
  return run == nullptr || run->idle() ? newest : run->load(location, newest, order);
}

void store(const void* location, uint64_t newest, uint64_t value, std::memory_order order) {
  if (run != nullptr && !run->idle()) run->store(location, newest, value, order);
}

uint64_t update(const void* location, uint64_t newest, const std::function<uint64_t(uint64_t)>& change,
                std::memory_order order) {
  return run == nullptr || run->idle() ? newest : run->update(location, newest, change, order);
}

void fence() {
  if (run != nullptr && !run->idle()) run->fence();
}

void Mutex::lock() {
  if (run == nullptr || run->idle()) return;
  while (update(&locked_, locked_, [](uint64_t) { return 1; }, std::memory_order_acquire) != 0) {
    if (!blockUntil([this] { return locked_ == 0; })) return;
  }
  locked_ = 1;
}

void Mutex::unlock() {
  store(&locked_, locked_, 0, std::memory_order_release);
  locked_ = 0;
}

bool blockUntil(const std::function<bool()>& condition) { return run->blockUntil(condition); }
bool isOver() { return run->over(); }
void fail(const std::string& what) { run->fail(what); }
void reads(const void* memory) {
  if (!run->idle()) run->reads(memory);
}
void writes(const void* memory) {
  if (!run->idle()) run->writes(memory);
}

Result explore(const Scenario& scenario, uint64_t max_runs) {
  Result result;
  std::vector<Choice> path;
  while (result.runs < max_runs) {
    ++result.runs;
    std::unique_ptr<Case> c = scenario.make();
    result.failure = Run(path, scenario.deviations, false).execute(*c);
    if (!result.failure.empty()) {
      c = scenario.make();
      result.failure = Run(path, scenario.deviations, true).execute(*c);  // once more, with a trace
      return result;
    }
    while (!path.empty() && path.back().taken + 1 == path.back().count) path.pop_back();
    if (path.empty()) {
      result.complete = true;
      return result;
    }
    ++path.back().taken;
  }
  return result;
}

}  // namespace explore
