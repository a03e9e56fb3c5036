// Memory straight from the kernel: zero pages until touched, and given back whole when it ends. What malloc would keep
// of it after a shard ended is as large as the shard was busy.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>

namespace derplane {

template <typename T>
class PageMemory {
 public:
  explicit PageMemory(size_t count) : bytes_(count * sizeof(T)) {
    void* p = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) std::abort();  // without address space for its turns a shard cannot exist
    data_ = static_cast<T*>(p);
  }
  PageMemory(const PageMemory&) = delete;
  PageMemory& operator=(const PageMemory&) = delete;
  ~PageMemory() { ::munmap(data_, bytes_); }

  T* get() { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

 private:
  size_t bytes_;
  T* data_ = nullptr;
};

}  // namespace derplane
