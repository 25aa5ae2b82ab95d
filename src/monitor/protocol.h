#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"

/// The protocol between kelp and the monitor of a container, over the link that kelp hands to a new monitor and over
/// run/<id>/attach.sock alike. SOCK_SEQPACKET: a frame is a packet, descriptors travel with it.
///
///     kelp                                   kelp-monitor
///     hello(1) ──────────────────────────►                      value: newest version the sender speaks
///                ◄────────────────────────── hello(1)           both go on with the smaller one
///     attach ────────────────────────────►                      value: streams wanted (kStream…)
///                ◄────────────────────────── started(pid) | failed(exit code, "message\0hint")
///                ◄────────────────────────── output(stream, bytes) …
///     input(bytes) ──────────────────────►                      one at a time: the next one after input_taken
///                ◄────────────────────────── input_taken
///     input_end, resize, signal, stop ───►
///                ◄────────────────────────── ended(exit code)   its record is on disk by then
///     exec("arg=…\0…", fds) ─────────────►                      a connection of its own
///                ◄────────────────────────── exec_started(pid), exec_ended(exit code)
///                ◄────────────────────────── initialized(pid)   instead of started, where the plan says stay_at_gate
///     open_gate ─────────────────────────►                      since version 4; answered by started | failed
///     update("restart=…\0…") ────────────►                      since version 3
///                ◄────────────────────────── updated | failed
///
/// A monitor may be months older than kelp: frames keep their meaning for ever, unknown ones are answered with
/// `unsupported` and otherwise ignored; a new verb raises kVersion. End-of-file means that the peer has gone.
namespace kelp::monitor {

/// 2: health_check. 3: update. 4: open_gate. 5: rename.
inline constexpr std::uint32_t kVersion = 5;

enum class Msg : std::uint8_t {
  // both ways
  hello = 1,
  // from kelp
  attach = 10,
  input = 11,
  input_end = 12,
  resize = 13,        ///< value: rows << 16 | columns
  signal = 14,        ///< value: number
  stop = 15,          ///< value: seconds until SIGKILL; flags: first signal, 0 = the container's own
  exec = 16,          ///< payload: plan records "arg=…"; descriptors in the order of kExec…
  user_stop = 17,     ///< somebody is about to end the container from outside: no restart by policy
  health_check = 18,  ///< run the probe now; answered by exec_ended with 0, 1 or 2 (timed out), or by failed
  update = 19,        ///< payload: plan records of a change (plan.h, encode_change)
  open_gate = 20,     ///< execute the command of a container that waits at the gate
  rename = 21,        ///< payload: the container's new name, for the events to come; answered by updated
  // from the monitor
  started = 40,
  failed = 41,
  output = 42,  ///< flags: 1 stdout, 2 stderr
  input_taken = 43,
  ended = 44,
  exec_started = 45,
  exec_ended = 46,
  unsupported = 47,  ///< value: the frame's type
  updated = 48,
  initialized = 49,  ///< value: pid; the container is set up and waits at the gate
};

/// Streams in attach's value.
inline constexpr std::uint32_t kStreamIn = 1, kStreamOut = 2, kStreamErr = 4;
/// attach: the sender is the foreground `run` or `start`: a slow reader holds the container back instead of being cut.
inline constexpr std::uint32_t kForeground = 8;
/// attach's flags, with kForeground: the pipes that are the sender's stdout and stderr come along, in this order, and
/// what they are for goes there by splice(2) and not through the sender. A monitor that does not know of it sends it
/// `output`, as does one that finds a pipe's reader gone.
inline constexpr std::uint16_t kPipeOut = 1, kPipeErr = 2;

/// Descriptors that one frame may carry.
inline constexpr size_t kMaxFds = 200;
/// Largest payload of input and output, in bytes.
inline constexpr size_t kMaxPayload = 32768;

struct Header {
  Msg type;
  std::uint8_t reserved = 0;
  std::uint16_t flags = 0;
  std::uint32_t value = 0;
};
static_assert(sizeof(Header) == 8);

struct Frame {
  Header header;
  std::string_view payload;  ///< valid until the next receive
  std::vector<Fd> fds;
};

enum class Sent { yes, would_block, gone };
/// One frame; never raises SIGPIPE. `wait`: blocks while the queue is full instead of Sent::would_block.
Sent send_frame(int socket, Header header, std::string_view payload = {}, const std::vector<int>& fds = {},
                bool wait = false) noexcept;

enum class Received { frame, nothing, gone };
/// One frame into `frame`; `wait` false: Received::nothing when there is none. A malformed packet counts as gone.
Received receive_frame(int socket, Frame& frame, bool wait) noexcept;

/// A socket bound to (connected to) the name in an open directory, which sun_path is long enough for whatever the
/// directory's own path is. connect: -1 with errno when nobody listens.
Fd listen_at(int dirfd, const char* name);
Fd connect_at(int dirfd, const char* name) noexcept;

}  // namespace kelp::monitor
