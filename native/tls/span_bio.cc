#include "span_bio.h"

#include <algorithm>
#include <cstring>

namespace derplane {
namespace {

SpanBio& spanOf(BIO* bio) { return *static_cast<SpanBio*>(BIO_get_data(bio)); }

int readSpan(BIO* bio, char* to, size_t room, size_t* got) {
  SpanBio& span = spanOf(bio);
  BIO_clear_retry_flags(bio);
  if (span.left == 0 || span.blocked) {
    BIO_set_retry_read(bio);
    return 0;
  }
  *got = std::min(room, span.left);
  std::memcpy(to, span.data, *got);
  span.data += *got;
  span.left -= *got;
  return 1;
}

int writeSpan(BIO* bio, const char* from, size_t size, size_t* written) {
  std::vector<uint8_t>& output = *spanOf(bio).output;
  // As bytes of the vector's own type they are copied at once, else one by one.
  const auto* bytes = reinterpret_cast<const uint8_t*>(from);
  output.insert(output.end(), bytes, bytes + size);
  *written = size;
  return 1;
}

long control(BIO*, int command, long, void*) {
  // Flushing has nothing to do, and everything else is not asked for.
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

BIO_METHOD* method() {
  static BIO_METHOD* const kMethod = [] {
    BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "derplane span");
    BIO_meth_set_read_ex(m, readSpan);
    BIO_meth_set_write_ex(m, writeSpan);
    BIO_meth_set_ctrl(m, control);
    return m;
  }();
  return kMethod;
}

}  // namespace

BIO* SpanBio::make(SpanBio* span) {
  BIO* bio = BIO_new(method());
  if (bio == nullptr) return nullptr;
  BIO_set_data(bio, span);
  BIO_set_init(bio, 1);
  return bio;
}

}  // namespace derplane
