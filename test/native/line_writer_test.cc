#include "native/io/line_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "check.h"
#include "native/io/fd.h"

using namespace derplane;

namespace {

constexpr uint32_t kLongMs = 60'000;

struct Pipe {
  Fd read_end;
  Fd write_end;

  Pipe() {
    int ends[2];
    CHECK_EQ(::pipe(ends), 0);
    read_end.reset(ends[0]);
    write_end.reset(ends[1]);
  }

  // Exactly so many bytes.
  std::string read(size_t size) {
    std::string text(size, '\0');
    for (size_t done = 0; done < size;) {
      const ssize_t n = ::read(read_end.get(), text.data() + done, size - done);
      CHECK(n > 0);
      done += static_cast<size_t>(n);
    }
    return text;
  }
};

}  // namespace

TEST("lines are written in their order, each behind its notice") {
  Pipe pipe;
  const auto writer = LineWriter::start(pipe.write_end.get(), 1 << 20);
  std::string expected;
  for (int i = 0; i < 1000; ++i) {
    const std::string line = std::to_string(i) + "\n";
    writer->write(line, "", 0);
    expected += line;
  }
  CHECK_EQ(pipe.read(expected.size()), expected);
  CHECK(writer->flush(kLongMs));
  CHECK_EQ(writer->lost(), 0u);
}

TEST("what a writer cannot write is lost at once, with all that waits behind it, and told by the next notice") {
  const Fd full(::open("/dev/full", O_WRONLY | O_CLOEXEC));
  const auto writer = LineWriter::start(full.get(), 1 << 20);
  for (int i = 0; i < 100; ++i) writer->write("line\n", "", 0);
  CHECK(writer->flush(kLongMs));
  CHECK_EQ(writer->lost(), 100u);
  CHECK_EQ(writer->unreported(), 100u);
  CHECK_EQ(writer->lastError(), ENOSPC);
  // A notice that is lost itself is no line more, and what it reported is still to be reported.
  writer->write("line\n", "notice\n", 100);
  CHECK(writer->flush(kLongMs));
  CHECK_EQ(writer->lost(), 101u);
  CHECK_EQ(writer->unreported(), 101u);
}

TEST("a writer blocked in a write delays nobody, also not who ends it") {
  Pipe pipe;
  auto writer = LineWriter::start(pipe.write_end.get(), 1 << 20);
  const std::string large(200'000, 'x');
  writer->write(large + "\n", "", 0);
  for (int i = 0; i < 100'000; ++i) writer->write("a line that is one too many, sooner or later\n", "", 0);
  CHECK(writer->lost() > 0);
  CHECK_EQ(writer->lost(), writer->unreported());
  CHECK_EQ(writer->lastError(), 0);
  CHECK(!writer->flush(1));
  writer.reset();
  // What was queued is written all the same, once there is a reader.
  CHECK_EQ(pipe.read(large.size()), large);
  CHECK_EQ(pipe.read(7), "\na line");
  pipe.read_end.reset();
}
