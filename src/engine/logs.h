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
/// Where the log of a container is. throws Error when its driver keeps none
std::string log_path(const Context& context, const store::ContainerRecord& record);

/// Hands the entries to `take` in order. With follow it goes on until the container has ended and all was read, `until`
/// has passed, or take returns false.
void read_logs(Context& context, const store::ContainerRecord& record, const LogOptions& options,
               const std::function<bool(const LogEntry&)>& take);

}  // namespace kelp::engine
