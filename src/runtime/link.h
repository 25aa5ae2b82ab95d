#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "base/owned.h"
#include "sys/link.h"

/// The protocol between the runtime and the container's first process (or an exec'd one). One frame is one letter and
/// its text. `failed` and `log` may come from the child at any time; end-of-file means that the other side has died,
/// but for the last one: exec closes the child's end, which is how success looks.
///
///     kelp-oci (ParentLink)                        first process (ChildLink)
///       │  clone3                                    │
///       │ ◄─────────── enter_group ───────────────── │   only from a helper that could not be cloned into the cgroup
///       │ ─────────── go ──────────────────────────► │
///       │ ◄─────────── staged: pid, pidfd ────────── │   only from the joining helper process
///       │ ◄─────────── map_ids ───────────────────── │   only with a new user namespace
///       │ ─────────── go ──────────────────────────► │
///       │ ◄─────────── net_devices: netns fd ─────── │   only with linux.netDevices
///       │ ─────────── go ──────────────────────────► │
///       │ ◄─────────── hooks ─────────────────────── │   only when there are prestart or createRuntime hooks
///       │ ─────────── go ──────────────────────────► │
///       │ ◄─────────── ready ─────────────────────── │   "created": the payload was found, all is mounted
///       │ ─────────── go ──────────────────────────► │   run: start now
///       │ ─────────── hold ────────────────────────► │   create: wait at the gate (start_gate.h), link is closed
///       │ ◄─────────── listener: notify fd ───────── │   only with SCMP_ACT_NOTIFY
///       │ ─────────── go ──────────────────────────► │
///       │ ◄─────────── executing ─────────────────── │
///       │ ◄═══ end-of-file: exec has succeeded ═════ │
namespace kelp::runtime {

enum class Msg : char {
  enter_group = 'e',
  staged = 'S',
  map_ids = 'm',
  net_devices = 'd',
  hooks = 'h',
  ready = 'r',
  listener = 'n',
  executing = 'x',
  failed = 'f',
  log = 'l',
  go = 'g',
  hold = 'w',
};

/// Said of an end that it did not announce itself.
inline constexpr std::string_view kFirstProcessDied =
    "the container's first process died before its program started (killed from outside, or out of memory)";

/// The runtime's end.
class ParentLink {
 public:
  explicit ParentLink(sys::Link link) : link_(std::move(link)) {}

  struct Event {
    Msg msg;
    std::string text;
    std::vector<Fd> fds;
  };
  /// Next message that is not a log record (those are logged). nullopt = end-of-file.
  /// throws the child's Error, with its exit code and hint, when it says `failed`
  std::optional<Event> next();
  /// As next(); end-of-file is an error that says `doing` was interrupted by the child's death.
  Event require(const char* doing);
  void go() { send(Msg::go); }
  void hold() { send(Msg::hold); }
  [[nodiscard]] int fd() const noexcept { return link_.fd(); }
  void close() noexcept { link_.close(); }

 private:
  void send(Msg msg);
  sys::Link link_;
};

/// The first process' end.
class ChildLink {
 public:
  explicit ChildLink(sys::Link link) : link_(std::move(link)) {}

  void tell(Msg msg, std::string_view text = {}, int fd = -1);
  void tell_failed(const Error& error) noexcept;
  void tell_log(int level, std::string_view text) noexcept;
  /// tell() and wait for the answer. The parent's death ends this process at once: nothing must be left behind.
  Msg ask(Msg msg, std::string_view text = {}, int fd = -1);
  [[nodiscard]] int fd() const noexcept { return link_.fd(); }
  /// From here on another connection is spoken to (the gate's).
  void replace(sys::Link link) { link_ = std::move(link); }

 private:
  sys::Link link_;
};

}  // namespace kelp::runtime
