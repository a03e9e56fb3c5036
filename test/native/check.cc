// Runs the tests of one program. Each prints one line, failures first: run.mjs reads `ok NAME` and `not ok NAME`.
#include "check.h"

#include <atomic>
#include <cstring>

namespace check {
namespace {

std::atomic<uint64_t> failed = 0;  // threads of a test check too
std::string context;

const char* baseName(const char* path) {
  const char* slash = std::strrchr(path, '/');
  return slash == nullptr ? path : slash + 1;
}

}  // namespace

std::vector<Test>& tests() {
  static std::vector<Test> list;
  return list;
}

void fail(const char* file, int line, const std::string& what) {
  if (++failed > kMaxReported) return;
  std::printf("  %s:%d: %s%s%s%s\n", baseName(file), line, what.c_str(), context.empty() ? "" : " (", context.c_str(),
              context.empty() ? "" : ")");
}

uint64_t failures() { return failed; }

void note(std::string text) { context = std::move(text); }

}  // namespace check

// The argument, if any, is a part of the names of the tests to run.
int main(int argc, char** argv) {
  int bad = 0;
  for (const check::Test& test : check::tests()) {
    if (argc > 1 && std::strstr(test.name, argv[1]) == nullptr) continue;
    check::failed = 0;
    check::note("");
    test.run();
    if (check::failed > check::kMaxReported) {
      std::printf("  ... %llu failures in all\n", static_cast<unsigned long long>(check::failures()));
    }
    std::printf("%s %s: %s\n", check::failed == 0 ? "ok" : "not ok", check::baseName(test.file), test.name);
    std::fflush(stdout);
    bad += check::failed == 0 ? 0 : 1;
  }
  return bad == 0 ? 0 : 1;
}
