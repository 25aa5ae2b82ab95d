#pragma once

#include <memory>
#include <string>

namespace kelp {

/// A regular expression as users of podman write them in --filter: POSIX extended, with \w \s \b \d (?:…) of Go's, and
/// (?i) at the beginning.
class Pattern {
 public:
  /// throws Error: it is none
  explicit Pattern(const std::string& text);
  /// Whether it fits any part of `text`.
  [[nodiscard]] bool found_in(const std::string& text) const noexcept;

 private:
  struct Compiled;
  std::shared_ptr<const Compiled> compiled_;
};

}  // namespace kelp
