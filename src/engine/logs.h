#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// One piece of output as it was logged.
///
/// text     bytes of the piece, without the newline that ends a full one
/// partial  the line goes on in the next piece of the same stream
struct LogEntry {
  std::chrono::system_clock::time_point time;
  bool is_stderr = false;
  bool partial = false;
  std::string text;
};
/// The two file formats. nullopt: the line is damaged (a crash in the middle of a write).
/// k8s-file: "<RFC 3339> stdout F text" (CRI); json-file: {"log":"text\n","stream":"stdout","time":"…"}.
std::optional<LogEntry> parse_k8s_line(std::string_view line);
std::optional<LogEntry> parse_json_line(std::string_view line);

struct LogOptions {
  bool follow = false;
  std::optional<std::uint64_t> tail;  ///< last lines only; nullopt = all
  std::optional<std::chrono::system_clock::time_point> since, until;
};
/// Bound of --log-opt max-file: a reader has all of them open.
inline constexpr int kMostLogFiles = 100;
/// false: output goes to the journal, to the caller, or nowhere.
bool has_log_file(std::string_view driver) noexcept;
/// Where the log of a container is; with max-size, what was before it is beside it (.1, .2 …). throws Error when its
/// driver keeps none
std::string log_path(const Context& context, const store::ContainerRecord& record);

/// May take the block away (swap): it is emptied afterwards.
using TakeBlock = std::function<void(bool is_stderr, std::string& block)>;
/// The bytes alone, in blocks, as fast as they can be read: for a log that nobody wants times or parts of. With follow
/// as read_logs(). false: not possible for this log or these options, nothing was done.
bool copy_log(Context& context, const store::ContainerRecord& record, const LogOptions& options, const TakeBlock& take);

/// Runs the body for each index in a child of its own and waits for all of them: several logs that are followed at
/// once.
void in_children(size_t count, const std::function<void(size_t)>& body);

/// Hands the entries to `take` in order. With follow it goes on until the container has ended and all was read, `until`
/// has passed, or take returns false.
void read_logs(Context& context, const store::ContainerRecord& record, const LogOptions& options,
               const std::function<bool(const LogEntry&)>& take);

}  // namespace kelp::engine
