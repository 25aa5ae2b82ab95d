#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/images.h"

namespace kelp::cli {

/// Shows transfers on standard error: a bar per layer on a terminal, one line per event elsewhere, nothing when quiet.
/// finish() (or the destructor) leaves the bars as they are and the cursor below them.
class ProgressView {
 public:
  explicit ProgressView(bool quiet);
  ProgressView(const ProgressView&) = delete;
  ProgressView& operator=(const ProgressView&) = delete;
  ~ProgressView() { finish(); }

  void show(const engine::ProgressEvent& event);
  void finish() noexcept;
  /// What the engine's verbs take; the view must outlive it.
  engine::ProgressFn callback();

 private:
  struct Bar {
    std::string id, state;
    std::uint64_t current = 0, total = 0;
  };
  Bar& bar_of(const std::string& id);
  void draw();
  [[nodiscard]] std::string line_of(const Bar& bar, size_t width) const;

  bool quiet_, terminal_;
  std::vector<Bar> bars_;
  size_t drawn_ = 0;
  std::int64_t last_draw_ms_ = 0;
};

}  // namespace kelp::cli
