#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// One line of events.log (see monitor/event_log.h).
struct Event {
  std::chrono::system_clock::time_point time;
  std::string type;    ///< container, image, volume, secret, system
  std::string status;  ///< create, init, start, died, …
  std::string id, name, image;
  store::StringMap attributes;  ///< a container's labels
  std::optional<int> exit_code;
  std::string health;
};

/// What a container's events say of it: members of a JSON object, without braces.
std::string event_subject(const store::ContainerRecord& record);
/// Tells that a step was taken; never fails. extra: see monitor::event_line().
void emit_event(const Context& context, const store::ContainerRecord& record, std::string_view status,
                std::string_view extra = {});
void emit_event(const Context& context, std::string_view type, std::string_view status, std::string_view id,
                std::string_view name);

struct EventOptions {
  std::optional<std::chrono::system_clock::time_point> since, until;
  bool past = false;    ///< what was written before the call too
  bool follow = false;  ///< wait for more, until `until` or until `take` says false
};
/// Events in the order they were written. `take` returns false to end.
void read_events(Context& context, const EventOptions& options, const std::function<bool(const Event&)>& take);

}  // namespace kelp::engine
