#pragma once

#include <string>
#include <string_view>

/// events.log: one line of JSON per step in the life of a container, an image, a volume, written by whoever takes the
/// step (kelp or a monitor) with one O_APPEND write. Nobody locks to write; only the one who finds the file full takes
/// a lock, to make it events.log.1 and begin a new one, so that it never holds more than twice kEventLogSize.
///
///     {"schema":1,"time":NANOSECONDS,"Status":"died",…extra…,"Type":"container","ID":"…","Name":"…","Image":"…",
///      "Attributes":{…}}
///
/// A line without a schema is of the first form; one of a newer schema is not read, nor what stands after it.
namespace kelp::monitor {

inline constexpr long kEventLogSize = 1 << 20;

/// subject: members of the object that say what the event is about, without braces (see engine/events.h)
/// extra: further members, each with its comma: `,"ContainerExitCode":0`
std::string event_line(std::string_view status, std::string_view subject, std::string_view extra = {});

/// Whole lines in one write. An event that cannot be written (disk full) is lost, and nothing else.
void append_events(const std::string& path, std::string_view lines) noexcept;

}  // namespace kelp::monitor
