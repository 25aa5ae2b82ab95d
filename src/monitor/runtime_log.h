#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"

namespace kelp::monitor {

/// What an OCI runtime wrote with --log-format json.
struct RuntimeWords {
  std::string error;  ///< the last error, "" = none
  std::string hint;   ///< of the same record, from kelp-oci alone; "" = none
  std::vector<std::string> warnings;
};
/// Takes "level", "msg" and "hint" out of lines of JSON objects, as kelp-oci, runc and crun write them; other lines are
/// skipped.
RuntimeWords parse_runtime_log(std::string_view text);

/// The runtime's log in memory, as a file that the runtime opens as /proc/self/fd/N.
class RuntimeLog {
 public:
  RuntimeLog();
  [[nodiscard]] int fd() const noexcept { return fd_.get(); }
  [[nodiscard]] RuntimeWords read() const;

 private:
  Fd fd_;
};

/// 126 or 127 when a runtime's words say that the command cannot be executed or was not found, else 125.
int exit_code_of_words(std::string_view words) noexcept;
/// podman's rule for what a runtime could not start: 127 where something was not found, whatever it was, else 126.
/// Scripts tell by it that the container was made and kelp was not at fault.
int exit_code_of_failed_start(std::string_view words);

}  // namespace kelp::monitor
