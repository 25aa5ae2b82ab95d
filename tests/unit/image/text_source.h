#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "image/compression.h"

namespace kelp::image {

/// Gives a text in small pieces, so that lines and buffers never end together.
class TextSource : public Source {
 public:
  explicit TextSource(std::string text, size_t piece = 7) : text_(std::move(text)), piece_(piece) {}
  size_t read(void* buffer, size_t size) override {
    const size_t count = std::min({size, piece_, text_.size() - at_});
    std::memcpy(buffer, text_.data() + at_, count);
    at_ += count;
    return count;
  }

 private:
  std::string text_;
  size_t piece_, at_ = 0;
};

}  // namespace kelp::image
