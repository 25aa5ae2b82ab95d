#include "image/workers.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "image/http.h"

namespace kelp::image {

void run_parallel(size_t count, size_t threads,
                  const std::function<void(size_t piece, const std::stop_token& stop)>& work) {
  if (threads == 0) threads = std::max(1U, std::thread::hardware_concurrency());
  std::atomic<size_t> next = 0;
  std::stop_source stop;
  std::mutex mutex;
  std::exception_ptr failure;
  const auto run = [&] {
    for (size_t i = next++; i < count && !stop.stop_requested(); i = next++) {
      try {
        work(i, stop.get_token());
      } catch (const Cancelled&) {
        return;
      } catch (...) {
        const std::scoped_lock lock(mutex);
        if (!failure) failure = std::current_exception();
        stop.request_stop();
      }
    }
  };
  std::vector<std::thread> pool;
  for (size_t i = 1; i < std::min(threads, count); ++i) pool.emplace_back(run);
  run();
  for (std::thread& thread : pool) thread.join();
  if (failure) std::rethrow_exception(failure);
}

}  // namespace kelp::image
