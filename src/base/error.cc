#include "base/error.h"

#include <cstring>
#include <ctime>

namespace kelp {
namespace {
StepListener g_listener = nullptr;
}

void Error::add_context(std::string_view context) {
  std::string whole;
  whole.reserve(context.size() + 2 + message_.size());
  whole.append(context).append(": ").append(message_);
  message_ = std::move(whole);
}

SysError::SysError(std::string_view what, int errnum, int exit_code)
    : Error(fmt::format("{}: {}", what, errno_text(errnum)), exit_code), errno_(errnum) {}

std::string errno_text(int errnum) {
  // strerrordesc_np needs no locale and no buffer, so it is safe in threads and between clone and exec.
  const char* text = ::strerrordesc_np(errnum);
  return text != nullptr ? std::string(text) : fmt::format("error {}", errnum);
}

void set_step_listener(StepListener listener) noexcept { g_listener = listener; }

namespace detail {

bool steps_observed() noexcept { return g_listener != nullptr; }

long step_clock_micros() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<long>(now.tv_sec) * 1'000'000 + now.tv_nsec / 1'000;
}

void report_step(const char* name, long started_micros, bool failed) noexcept {
  if (g_listener != nullptr) g_listener(name, step_clock_micros() - started_micros, failed);
}

}  // namespace detail
}  // namespace kelp
