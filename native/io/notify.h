// Messages to the service manager that started this process (sd_notify(3)).
#pragma once

#include <string>

namespace derplane {

// Sends `text` as one datagram to the Unix socket at `path`; `@` begins a name instead of a path (unix(7), abstract).
// Waits for at most 100 ms. 0 or an errno.
int notifyManager(const std::string& path, const std::string& text);

}  // namespace derplane
