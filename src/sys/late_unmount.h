#pragma once

#include <memory>

namespace kelp::sys {

/// Unmounts the working directory (MNT_DETACH) beside our own work: an unmount waits for a grace period of the kernel,
/// 0.1 to 0.3 ms in which the processor has nothing to do. What was mounted there can be reached until wait() returns.
///
/// The thread is none of the C library's: it makes one system call, and has the working directory that was ours when it
/// began. Between start() and wait() this process must neither unshare nor exec.
class LateUnmount {
 public:
  LateUnmount();
  ~LateUnmount();  ///< waits
  LateUnmount(LateUnmount&&) noexcept;
  LateUnmount& operator=(LateUnmount&&) = delete;

  /// throws SysError when there can be no thread
  void start();
  /// Nothing to wait for: returns at once.
  /// throws SysError when the unmount failed
  void wait();

 private:
  struct Thread;
  std::unique_ptr<Thread> thread_;
};

}  // namespace kelp::sys
