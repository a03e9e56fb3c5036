// Looks at a client's first messages before OpenSSL does, which would give a ClientHello as much memory as its header
// claims, 128 KiB, before any more of it has come.
#pragma once

#include <cstddef>
#include <cstdint>

namespace derplane {

class HelloGuard {
 public:
  // Real ones have up to 2 kB; OpenSSL's buffer for messages begins with as much as this.
  static constexpr uint32_t kMaxClientHello = 16 << 10;

  // Bytes as they come from the client, cut anywhere. False from the first ClientHello that claims to be longer; what
  // comes behind the last ClientHello is not looked at.
  bool passes(const uint8_t* data, size_t size) {
    for (; size > 0 && phase_ != Phase::kDone && phase_ != Phase::kRefused;) {
      const size_t step = skip_ > 0 && message_at_ == 0 && phase_ == Phase::kBody ? skipBody(size) : takeByte(*data);
      data += step;
      size -= step;
    }
    return phase_ != Phase::kRefused;
  }

 private:
  enum class Phase { kRecord, kBody, kDone, kRefused };
  static constexpr uint8_t kChangeCipherSpec = 20;
  static constexpr uint8_t kAlert = 21;
  static constexpr uint8_t kHandshake = 22;
  static constexpr uint8_t kClientHello = 1;
  static constexpr uint32_t kRecordHeader = 5;
  static constexpr uint32_t kMessageHeader = 4;

  // Passes over what is known to be there: the rest of a message, or of a record that has none.
  size_t skipBody(size_t size) {
    size_t step = skip_ < record_left_ ? skip_ : record_left_;
    if (step > size) step = size;
    skip_ -= static_cast<uint32_t>(step);
    leaveRecord(static_cast<uint32_t>(step));
    return step;
  }

  size_t takeByte(uint8_t byte) {
    if (phase_ == Phase::kRecord) {
      takeRecordHeader(byte);
    } else {
      takeMessageHeader(byte);
      leaveRecord(1);
    }
    return 1;
  }

  void takeRecordHeader(uint8_t byte) {
    if (record_at_ == 0) record_type_ = byte;
    if (record_at_ >= 3) record_left_ = record_left_ << 8 | byte;
    if (++record_at_ < kRecordHeader) return;
    record_at_ = 0;
    if (record_type_ == kHandshake) {
      phase_ = record_left_ == 0 ? Phase::kRecord : Phase::kBody;
    } else if ((record_type_ == kChangeCipherSpec || record_type_ == kAlert) && message_at_ == 0 && skip_ == 0) {
      skip_ = record_left_;
      phase_ = record_left_ == 0 ? Phase::kRecord : Phase::kBody;
    } else {
      phase_ = Phase::kDone;  // encrypted, or no TLS: OpenSSL's to judge
    }
  }

  void takeMessageHeader(uint8_t byte) {
    if (message_at_ == 0 && byte != kClientHello) {
      phase_ = Phase::kDone;
      return;
    }
    if (message_at_ > 0) skip_ = skip_ << 8 | byte;
    if (++message_at_ == kMessageHeader) {
      message_at_ = 0;
      if (skip_ > kMaxClientHello) phase_ = Phase::kRefused;
    }
  }

  void leaveRecord(uint32_t bytes) {
    record_left_ -= bytes;
    if (record_left_ == 0 && phase_ == Phase::kBody) phase_ = Phase::kRecord;
  }

  Phase phase_ = Phase::kRecord;
  uint8_t record_type_ = 0;
  uint32_t record_at_ = 0;    // bytes of its header that came
  uint32_t record_left_ = 0;  // bytes of its body still to come
  uint32_t message_at_ = 0;   // bytes of the message's header that came
  uint32_t skip_ = 0;         // bytes that need not be looked at; within the message's header, what came of its length
};

}  // namespace derplane
