#include "image/transports/tar_split.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/base64.h"
#include "base/error.h"
#include "base/text.h"
#include "sys/safe_path.h"

namespace kelp::image {

namespace {

constexpr size_t kBuffer = 128 << 10;
constexpr size_t kMaxLine = 64 << 20;  ///< PAX headers of any size are one line

/// One line: a piece of the archive, or a file whose data comes next.
struct Entry {
  bool file = false;
  std::string name;
  std::uint64_t size = 0;
  std::string bytes;
};

Entry parse_entry(std::string_view line, const std::string& what) {
  constexpr int kFile = 1, kSegment = 2;
  Entry entry;
  try {
    const auto json = nlohmann::json::parse(line);
    const int type = json.at("type").get<int>();
    if (type != kFile && type != kSegment) throw_error("{}: recipe: entries of type {} are not known", what, type);
    entry.file = type == kFile;
    const auto decoded = [&](const char* key) {
      auto bytes = base64_decode(json.at(key).get_ref<const std::string&>());
      if (!bytes) throw_error("{}: recipe: {} is not base64", what, key);
      return std::move(*bytes);
    };
    if (entry.file) {
      // A name that is not UTF-8 stands in name_raw.
      entry.name = json.contains("name_raw") ? decoded("name_raw") : json.value("name", "");
      entry.size = json.value("size", std::uint64_t{0});
    } else if (json.contains("payload") && !json["payload"].is_null()) {
      entry.bytes = decoded("payload");
    }
  } catch (const nlohmann::json::exception& error) {
    throw_error("{}: recipe: damaged: {}", what, error.what());
  }
  return entry;
}

/// The next line of a recipe; nullopt at its end.
std::optional<std::string_view> next_line(Source& recipe, std::string& lines, size_t& at, const std::string& what) {
  size_t searched = at;
  for (;;) {
    if (const size_t end = lines.find('\n', searched); end != std::string::npos) {
      const std::string_view line = std::string_view(lines).substr(at, end - at);
      at = end + 1;
      return line;
    }
    lines.erase(0, at);
    at = 0;
    searched = lines.size();
    if (searched > kMaxLine) throw_error("{}: recipe: a line is longer than {} bytes", what, kMaxLine);
    lines.resize(searched + kBuffer);
    const size_t got = recipe.read(lines.data() + searched, kBuffer);
    lines.resize(searched + got);
    if (got > 0) continue;
    if (lines.empty()) return std::nullopt;
    at = lines.size();
    return std::string_view(lines);
  }
}

}  // namespace

TarSplitSource::TarSplitSource(Source& recipe, int tree, std::string what)
    : recipe_(recipe), tree_(tree), what_(std::move(what)) {}

bool TarSplitSource::next_entry() {
  while (const auto line = next_line(recipe_, lines_, line_at_, what_)) {
    if (trim(*line).empty()) continue;
    Entry entry = parse_entry(*line, what_);
    if (!entry.file) {
      bytes_ = std::move(entry.bytes);
      bytes_at_ = 0;
      return true;
    }
    if (entry.size == 0) continue;
    name_ = std::move(entry.name);
    file_ = sys::try_open_in_root(tree_, name_, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
    if (!file_) throw_errno("{}: open {}", what_, kelp::quoted(name_));
    file_left_ = entry.size;
    return true;
  }
  return false;
}

size_t TarSplitSource::read(void* buffer, size_t size) {
  if (size == 0) return 0;
  while (bytes_at_ == bytes_.size() && file_left_ == 0) {
    file_.reset();
    if (!next_entry()) return 0;
  }
  if (bytes_at_ < bytes_.size()) {
    const size_t count = std::min(size, bytes_.size() - bytes_at_);
    std::memcpy(buffer, bytes_.data() + bytes_at_, count);
    bytes_at_ += count;
    return count;
  }
  ssize_t got = 0;
  do {
    got = ::read(file_.get(), buffer, static_cast<size_t>(std::min<std::uint64_t>(size, file_left_)));
  } while (got < 0 && errno == EINTR);
  if (got < 0) throw_errno("{}: read {}", what_, kelp::quoted(name_));
  if (got == 0) throw_error("{}: {} is shorter than it was", what_, kelp::quoted(name_));
  file_left_ -= static_cast<std::uint64_t>(got);
  return static_cast<size_t>(got);
}

std::uint64_t tar_split_size(Source& recipe, const std::string& what) {
  std::string lines;
  size_t at = 0;
  std::uint64_t size = 0;
  while (const auto line = next_line(recipe, lines, at, what)) {
    if (trim(*line).empty()) continue;
    const Entry entry = parse_entry(*line, what);
    if (__builtin_add_overflow(size, entry.file ? entry.size : entry.bytes.size(), &size))
      throw_error("{}: recipe: its sizes are nonsense", what);
  }
  return size;
}

}  // namespace kelp::image
