#pragma once

#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "base/error.h"

namespace kelp::fuzz {

/// Ends a target that saw something that must never be: libFuzzer keeps the input that led here.
[[noreturn]] inline void finding(std::string_view what, std::string_view detail) {
  std::fprintf(stderr, "finding: %.*s\n%.*s\n", static_cast<int>(what.size()), what.data(),
               static_cast<int>(detail.size()), detail.data());
  std::abort();
}

/// Runs `read`; false when it refused its input with an Error that says why. Any other exception is a finding.
template <typename Fn>
bool accepted(Fn&& read) {
  try {
    read();
    return true;
  } catch (const Error& error) {
    const std::string_view text = error.what();
    if (text.empty()) finding("an error without a text", "");
    if (text.find('\n') != std::string_view::npos) finding("an error of more than one line", text);
    return false;
  }
}

}  // namespace kelp::fuzz
