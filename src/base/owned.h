#pragma once

#include <unistd.h>

#include <functional>
#include <utility>
#include <vector>

namespace kelp {

/// Owner of a file descriptor. An int that is a descriptor appears elsewhere only as a borrowed argument.
class Fd {
 public:
  Fd() noexcept = default;
  explicit Fd(int fd) noexcept : fd_(fd) {}
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    if (this != &other) {
      reset();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() { reset(); }

  [[nodiscard]] int get() const noexcept { return fd_; }
  [[nodiscard]] bool valid() const noexcept { return fd_ >= 0; }
  explicit operator bool() const noexcept { return valid(); }
  [[nodiscard]] int release() noexcept { return std::exchange(fd_, -1); }
  void reset() noexcept {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_ = -1;
};

/// Undo steps, run in reverse order when the scope is left without commit().
class Rollback {
 public:
  Rollback() = default;
  Rollback(const Rollback&) = delete;
  Rollback& operator=(const Rollback&) = delete;
  ~Rollback() {
    for (auto it = undo_.rbegin(); it != undo_.rend(); ++it) {
      try {
        (*it)();
      } catch (...) {  // clean-up goes on: one failed undo must not keep the others from running
      }
    }
  }
  void add(std::function<void()> undo) { undo_.push_back(std::move(undo)); }
  void commit() noexcept { undo_.clear(); }

 private:
  std::vector<std::function<void()>> undo_;
};

}  // namespace kelp
