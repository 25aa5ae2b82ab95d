#pragma once

#include <cstddef>
#include <functional>
#include <stop_token>

namespace kelp::image {

/// Does work(0) … work(count - 1), in this order, on up to `threads` threads (0 = processors), of which the caller's is
/// one. After the first error no further piece is begun, those at work are asked to stop, and it is thrown here.
/// Cancelled, which they throw then, is no error of its own.
void run_parallel(size_t count, size_t threads,
                  const std::function<void(size_t piece, const std::stop_token& stop)>& work);

}  // namespace kelp::image
