#pragma once

#include "image/compression.h"
#include "store/blobs.h"

namespace kelp::image {

/// Into a blob that is being written (borrowed).
class BlobSink : public Sink {
 public:
  explicit BlobSink(store::BlobWriter& target) : target_(target) {}
  void write(const void* data, size_t size) override { target_.write(data, size); }

 private:
  store::BlobWriter& target_;
};

}  // namespace kelp::image
