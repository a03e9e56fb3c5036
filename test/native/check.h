// The whole test framework: TEST("promise") { CHECK(...); CHECK_EQ(got, want); }. A failed check says where and goes
// on; `note` sets text that every failure of the running test carries, such as the seed of a random run.
#pragma once

#include <cstdint>
#include <cstdio>
#include <iosfwd>
#include <sstream>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace check {

struct Test {
  const char* file;
  const char* name;
  void (*run)();
};

std::vector<Test>& tests();
void fail(const char* file, int line, const std::string& what);
// Failures of the running test; beyond kMaxReported they are only counted.
uint64_t failures();
void note(std::string text);

inline constexpr uint64_t kMaxReported = 10;

struct Registration {
  Registration(const char* file, const char* name, void (*run)()) { tests().push_back({file, name, run}); }
};

template <typename T>
std::string show(const T& value) {
  std::ostringstream out;
  if constexpr (std::is_enum_v<T>) {
    out << static_cast<int64_t>(value);
  } else if constexpr (sizeof(T) == 1 && std::is_integral_v<T>) {
    out << static_cast<int>(value);
  } else {
    out << value;
  }
  return out.str();
}

template <typename T>
inline constexpr bool is_number = std::is_integral_v<T> && !std::is_same_v<T, bool> && !std::is_same_v<T, char>;

template <typename A, typename B>
bool same(const A& a, const B& b) {
  if constexpr (is_number<A> && is_number<B>) {
    return std::cmp_equal(a, b);
  } else {
    return a == b;
  }
}

// xorshift64*: the same numbers everywhere for the same seed.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15 + 1) {}
  uint64_t next() {
    state_ ^= state_ >> 12;
    state_ ^= state_ << 25;
    state_ ^= state_ >> 27;
    return state_ * 0x2545f4914f6cdd1d;
  }
  // In [0, n).
  uint32_t below(uint32_t n) { return static_cast<uint32_t>((next() >> 32) * n >> 32); }
  // True once in n times.
  bool oneIn(uint32_t n) { return below(n) == 0; }

 private:
  uint64_t state_;
};

}  // namespace check

#define CHECK_JOIN2(a, b) a##b
#define CHECK_JOIN(a, b) CHECK_JOIN2(a, b)
#define TEST(name)                                                                                                   \
  static void CHECK_JOIN(test_, __LINE__)();                                                                         \
  static const check::Registration CHECK_JOIN(registration_, __LINE__)(__FILE__, name, CHECK_JOIN(test_, __LINE__)); \
  static void CHECK_JOIN(test_, __LINE__)()

#define CHECK(condition)                                           \
  do {                                                             \
    if (!(condition)) check::fail(__FILE__, __LINE__, #condition); \
  } while (false)

#define CHECK_EQ(got, want)                                                                                       \
  do {                                                                                                            \
    const auto& check_got = (got);                                                                                \
    const auto& check_want = (want);                                                                              \
    if (!check::same(check_got, check_want)) {                                                                    \
      check::fail(__FILE__, __LINE__, #got " is " + check::show(check_got) + ", not " + check::show(check_want)); \
    }                                                                                                             \
  } while (false)
