#pragma once

#include <string>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "engine/images.h"
#include "store/layers.h"

namespace kelp::engine {

struct Context;

/// One run of kelp-image, the program that moves images.
struct ImageCall {
  std::vector<std::string> arguments;  ///< verb and its own options, then "--" and the positional ones
  int stdin_fd = -1;                   ///< -1 = /dev/null; borrowed
  int stdout_fd = -1;                  ///< -1 = collected and returned; borrowed
  const ProgressFn* progress = nullptr;
  int root_fd = -1;  ///< given to the program under the number kImageRootFd; borrowed
  /// Outside of S, as the caller himself: nothing is unpacked. For root, whose files of other ids S cannot read.
  bool plain = false;
};
inline constexpr int kImageRootFd = 4;

/// Runs kelp-image to its end, inside S, where the caller is root over his subordinate ids. Returns its result
/// document; its error is thrown as ours, with its hint and exit status; its warnings are logged.
std::string run_image_program(Context& context, const ImageCall& call);

/// The result document as JSON, its warnings logged. throws Error when it is none
nlohmann::json parse_result(const std::string& text);

/// The options that name an id map.
std::vector<std::string> map_arguments(const store::IdMapping& map);
/// The map that layers are unpacked under as soon as they are here.
store::IdMapping default_map(Context& context);
std::vector<std::string> default_map_arguments(Context& context);

}  // namespace kelp::engine
