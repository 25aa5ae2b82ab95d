#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>

namespace kelp::image {

/// Tells the caller of kelp-image what happens: one JSON line per event on a descriptor,
/// {"v":1,"event":"bytes","id":"sha256:…","current":1,"total":2,"text":""}. The events are those of
/// engine::ProgressEvent. Every method may be called from any thread; without a descriptor nothing happens.
/// A reader that went away is no error.
class Progress {
 public:
  explicit Progress(int fd = -1) noexcept : fd_(fd) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void status(std::string_view text) { send("status", "", 0, 0, text); }
  void layer(std::string_view id, std::uint64_t total, std::string_view text = "") {
    send("layer", id, 0, total, text);
  }
  /// At most ten lines a second per id; the last one (current == total) always.
  void bytes(std::string_view id, std::uint64_t current, std::uint64_t total);
  void unpack(std::string_view id) { send("unpack", id, 0, 0, ""); }
  void done(std::string_view id) { send("done", id, 0, 0, ""); }

 private:
  void send(std::string_view event, std::string_view id, std::uint64_t current, std::uint64_t total,
            std::string_view text);

  int fd_;
  std::mutex mutex_;
  std::map<std::string, std::chrono::steady_clock::time_point, std::less<>> last_;
};

}  // namespace kelp::image
