// Memory straight from the kernel: zero pages until touched, and given back whole when it ends. What malloc would keep
// of it after a shard ended is as large as the shard was busy.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <cstdlib>
#include <utility>

namespace derplane {

template <typename T>
class PageMemory {
 public:
  PageMemory() = default;
  explicit PageMemory(size_t count) : bytes_(count * sizeof(T)) {
    void* p = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) std::abort();  // without address space for its turns a shard cannot exist
    data_ = static_cast<T*>(p);
  }
  PageMemory(PageMemory&& other) noexcept
      : bytes_(std::exchange(other.bytes_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  PageMemory& operator=(PageMemory&& other) noexcept {
    if (this != &other) {
      release();
      bytes_ = std::exchange(other.bytes_, 0);
      data_ = std::exchange(other.data_, nullptr);
    }
    return *this;
  }
  ~PageMemory() { release(); }

  T* get() const { return data_; }
  T& operator[](size_t i) { return data_[i]; }
  const T& operator[](size_t i) const { return data_[i]; }

  // Gives the pages back: zero again, at the same addresses.
  void discard() { ::madvise(data_, bytes_, MADV_DONTNEED); }
  // The same for elements [from, to), whose first byte begins a page.
  void discard(size_t from, size_t to) { ::madvise(data_ + from, (to - from) * sizeof(T), MADV_DONTNEED); }

 private:
  void release() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }

  size_t bytes_ = 0;
  T* data_ = nullptr;
};

}  // namespace derplane
