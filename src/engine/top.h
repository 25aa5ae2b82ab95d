#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What `top` can show of a process: podman's descriptors ("user", "hpid", …).
/// source: podman-top(1)
struct TopColumn {
  std::string_view name;     ///< "pid"
  std::string_view code;     ///< "%p", "" = none
  std::string_view heading;  ///< "PID"
};
const std::vector<TopColumn>& top_columns();
/// Whether it is a column's name or code.
bool is_top_column(std::string_view word);

/// Rows of the container's processes, those of its PID namespace, in the order of their PIDs; the first row is the
/// heading. wanted: names or codes; empty = podman's default columns.
/// throws UsageError for an unknown column; Error when the container is not running
std::vector<store::Strings> container_processes(Context& context, const store::ContainerRecord& record,
                                                const store::Strings& wanted);

}  // namespace kelp::engine
