#pragma once

#include <cerrno>
#include <exception>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <fmt/core.h>

namespace kelp {

/// Exit statuses that users of container tools know.
inline constexpr int kExitFailure = 125;       ///< kelp itself failed
inline constexpr int kExitCannotInvoke = 126;  ///< the command was found but cannot be executed
inline constexpr int kExitNotFound = 127;      ///< the command was not found

/// Root of all errors. what() is one line: what was tried, with names, from the outermost step to the cause.
///
/// hint       empty, or one line telling the command that mends it (printed after "hint: ")
/// exit_code  what the program exits with when nobody handles the error
class Error : public std::exception {
 public:
  explicit Error(std::string message, int exit_code = kExitFailure)
      : message_(std::move(message)), exit_code_(exit_code) {}

  [[nodiscard]] const char* what() const noexcept override { return message_.c_str(); }
  [[nodiscard]] const std::string& message() const noexcept { return message_; }
  [[nodiscard]] const std::string& hint() const noexcept { return hint_; }
  [[nodiscard]] int exit_code() const noexcept { return exit_code_; }
  /// The errno of the system call behind it, 0 when there was none.
  [[nodiscard]] virtual int code() const noexcept { return 0; }

  /// Puts "context: " in front of the message; each room adds its line once.
  void add_context(std::string_view context);
  Error& with_hint(std::string hint) {
    hint_ = std::move(hint);
    return *this;
  }
  Error& with_exit_code(int exit_code) {
    exit_code_ = exit_code;
    return *this;
  }

 private:
  std::string message_;
  std::string hint_;
  int exit_code_;
};

/// A system call failed. message = "what: strerror(errno)".
class SysError : public Error {
 public:
  SysError(std::string_view what, int errnum, int exit_code = kExitFailure);
  [[nodiscard]] int code() const noexcept override { return errno_; }
  SysError& with_hint(std::string hint) {
    Error::with_hint(std::move(hint));
    return *this;
  }

 private:
  int errno_;
};

/// The caller's words are off: unknown option value, bad name, unknown object. Nothing was changed.
class UsageError : public Error {
 public:
  using Error::Error;
  /// As Error's, but `throw UsageError(…).with_hint(…)` stays a UsageError.
  UsageError& with_hint(std::string hint) {
    Error::with_hint(std::move(hint));
    return *this;
  }
};

/// "No such file or directory" and so on; thread-safe.
std::string errno_text(int errnum);

template <typename... T>
[[noreturn]] void throw_error(fmt::format_string<T...> format, T&&... args) {
  throw Error(fmt::format(format, std::forward<T>(args)...));
}
template <typename... T>
[[noreturn]] void throw_usage(fmt::format_string<T...> format, T&&... args) {
  throw UsageError(fmt::format(format, std::forward<T>(args)...));
}
/// Throws SysError with the errno of the call that just failed.
template <typename... T>
[[noreturn]] void throw_errno(fmt::format_string<T...> format, T&&... args) {
  const int saved = errno;
  throw SysError(fmt::format(format, std::forward<T>(args)...), saved);
}

/// Where step() reports the steps it ran; null when nobody listens (the normal case, one branch).
/// name is the step's, micros its duration.
using StepListener = void (*)(const char* name, long micros, bool failed);
void set_step_listener(StepListener listener) noexcept;

namespace detail {
bool steps_observed() noexcept;
long step_clock_micros() noexcept;
void report_step(const char* name, long started_micros, bool failed) noexcept;
}  // namespace detail

/// Runs one named step of a story: an error that leaves it gets "name: " in front; the step is
/// logged with its microseconds where somebody listens.
template <typename Fn>
auto step(const char* name, Fn&& fn) -> std::invoke_result_t<Fn> {
  const long started = detail::steps_observed() ? detail::step_clock_micros() : 0;
  try {
    if constexpr (std::is_void_v<std::invoke_result_t<Fn>>) {
      std::forward<Fn>(fn)();
      if (started != 0) detail::report_step(name, started, false);
    } else {
      auto result = std::forward<Fn>(fn)();
      if (started != 0) detail::report_step(name, started, false);
      return result;
    }
  } catch (Error& error) {
    if (started != 0) detail::report_step(name, started, true);
    error.add_context(name);
    throw;
  }
}

}  // namespace kelp
