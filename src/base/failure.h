#pragma once

#include <string_view>

namespace kelp::log {

/// Only for main(): the error that ends the program, and the command that mends it ("" = none), written to the log's
/// sink (base/log.h): a second line "hint: …", in JSON the member "hint" of the same record, which engines that do not
/// know it skip. Never throws.
void failure(std::string_view text, std::string_view hint) noexcept;

}  // namespace kelp::log
