// Ranges of IP addresses, `192.0.2.0/24` or `2001:db8::/32`.
#pragma once

#include <string>
#include <vector>

#include "../core/client.h"

namespace derplane {

class AddressRanges {
 public:
  // Adds a range, or a single address; false when the text is neither.
  bool add(const std::string& text);
  bool empty() const { return ranges_.empty(); }
  bool contains(const Address& address) const;

 private:
  struct Range {
    Address base;
    int bits;  // of the 128
  };
  std::vector<Range> ranges_;
};

}  // namespace derplane
