#include "sys/late_unmount.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>

#include "base/error.h"

namespace kelp::sys {
namespace {

constexpr const char* kHere = ".";

/// umount2(2) without errno, which the thread would share with us: 0 or the negative error.
__attribute__((no_sanitize("address", "undefined"))) long unmount_here() noexcept {
#if defined(__x86_64__)
  long result = SYS_umount2;
  __asm__ volatile("syscall" : "+a"(result) : "D"(kHere), "S"(long{MNT_DETACH}) : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long number __asm__("x8") = SYS_umount2;
  register long result __asm__("x0") = reinterpret_cast<long>(kHere);
  register long flags __asm__("x1") = MNT_DETACH;
  __asm__ volatile("svc 0" : "+r"(result) : "r"(number), "r"(flags) : "memory");
  return result;
#else
  return -ENOSYS;
#endif
}

constexpr bool kHasOwnCall =
#if defined(__x86_64__) || defined(__aarch64__)
    true;
#else
    false;
#endif

}  // namespace

struct LateUnmount::Thread {
  static constexpr std::size_t kStack = 16 << 10;
  alignas(16) unsigned char stack[kStack];
  /// Not 0 while the thread lives; the kernel makes it 0 and wakes us (CLONE_CHILD_CLEARTID).
  std::atomic<int> alive{1};
  long result = 0;

  __attribute__((no_sanitize("address", "undefined"))) static int body(void* self) {
    static_cast<Thread*>(self)->result = unmount_here();
    return 0;
  }
  void join() noexcept {
    for (int id = alive.load(); id != 0; id = alive.load()) ::syscall(SYS_futex, &alive, FUTEX_WAIT, id, nullptr);
  }
};

LateUnmount::LateUnmount() = default;
LateUnmount::LateUnmount(LateUnmount&&) noexcept = default;
LateUnmount::~LateUnmount() {
  if (thread_) thread_->join();
}

void LateUnmount::start() {
  if (!kHasOwnCall) {
    if (::umount2(kHere, MNT_DETACH) < 0) throw_errno("unmount the working directory");
    return;
  }
  thread_ = std::make_unique<Thread>();
  const int flags = CLONE_VM | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM | CLONE_CHILD_CLEARTID;
  if (::clone(Thread::body, thread_->stack + Thread::kStack, flags, thread_.get(), nullptr, nullptr, &thread_->alive) <
      0) {
    const int error = errno;
    thread_.reset();
    // No process more is allowed: then we wait ourselves.
    if (error != EAGAIN && error != ENOMEM && error != EPERM) throw SysError("start a thread", error);
    if (::umount2(kHere, MNT_DETACH) < 0) throw_errno("unmount the working directory");
  }
}

void LateUnmount::wait() {
  if (!thread_) return;
  thread_->join();
  const long result = thread_->result;
  thread_.reset();
  if (result < 0) throw SysError("unmount the working directory", static_cast<int>(-result));
}

}  // namespace kelp::sys
