#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/error.h"
#include "store/container_record.h"

/// The JSON of container records, run states and exit records. A member that has its default value is not written.
namespace kelp::store {

/// A newer kelp has written it: it is left alone, where a damaged one may be repaired or removed.
class NewerRecord : public Error {
 public:
  using Error::Error;
};

std::string to_json(const ContainerRecord& record);
/// throws  NewerRecord; Error naming the origin and the member that is damaged
ContainerRecord record_from_json(std::string_view text, std::string_view origin);
std::string to_json(const RunState& state);
RunState run_state_from_json(std::string_view text, std::string_view origin);
std::string to_json(const ExitRecord& exit);
ExitRecord exit_record_from_json(std::string_view text, std::string_view origin);

}  // namespace kelp::store
