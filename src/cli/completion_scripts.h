#pragma once

namespace kelp::cli {

/// The files of completions/, made part of the program for `kelp completion`.
extern const char* const kBashCompletion;
extern const char* const kZshCompletion;
extern const char* const kFishCompletion;

}  // namespace kelp::cli
