// The log is a file that only grows, until the monitor replaces it at max-size by rename: PATH.1 is what was before it,
// PATH.2 what was before that. Following is reading on from where we are, looking at the file every 100 ms: no inotify
// (128 instances per user), no help of the monitor.
#include "engine/logs.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <vector>

#include <fmt/core.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/journal.h"
#include "store/containers.h"
#include "sys/clone.h"

namespace kelp::engine {
namespace {

using Parse = std::optional<LogEntry> (*)(std::string_view);

/// files  how many there are at most: 1 where nothing is rotated, as what is called PATH.1 then is not the container's
struct LogPlace {
  std::string path;
  int files = 1;
};

LogPlace place_of(const Context& context, const store::ContainerRecord& record) {
  LogPlace place{log_path(context, record)};
  const auto& options = record.config.log_options;
  if (options.count("max-size") == 0) return place;
  const auto files = options.find("max-file");
  place.files = files == options.end() ? 2 : static_cast<int>(to_int(files->second, 1, kMostLogFiles).value_or(2));
  return place;
}

bool still_runs(Context& context, const store::ContainerRecord& record) {
  if (!store::find(context.layout, record.id)) return false;
  switch (store::status(context.layout, record).status) {
    case store::Status::initialized:
    case store::Status::running:
    case store::Status::paused:
    case store::Status::stopping:
      return true;
    case store::Status::created:
    case store::Status::exited:
      return false;
  }
  return false;
}

/// Walks back through the files of a log to where its last lines begin. Pieces of one long line count once, and so does
/// a last one without an end.
class Tail {
 public:
  Tail(std::uint64_t lines, Parse parse) : lines_(lines), parse_(parse) {}

  /// The offset in this file, the newest first; nullopt: in an earlier one, if there is one.
  std::optional<off_t> begin_in(int fd) {
    const off_t size = ::lseek(fd, 0, SEEK_END);
    if (lines_ == 0) return size;
    std::string text;  // of [from, from + text.size()): what is not counted yet
    off_t from = size;
    while (from > 0) {
      const off_t begin = std::max<off_t>(0, from - kBlock);
      std::string block(static_cast<size_t>(from - begin), '\0');
      const ssize_t got = ::pread(fd, block.data(), block.size(), begin);
      if (got < 0) throw_errno("read the log");
      block.resize(static_cast<size_t>(got));
      text.insert(0, block);
      from = begin;
      while (!text.empty()) {
        const size_t last = text.back() == '\n' ? text.size() - 1 : text.size();
        const size_t newline = last == 0 ? std::string::npos : text.rfind('\n', last - 1);
        if (newline == std::string::npos && from > 0) break;  // begins in an earlier block
        const size_t start = newline == std::string::npos ? 0 : newline + 1;
        if (is_one_more(std::string_view(text).substr(start, last - start)))
          return from + static_cast<off_t>(text.size());
        text.resize(start);
      }
    }
    return std::nullopt;
  }

 private:
  static constexpr off_t kBlock = 65536;

  /// This line is one more than are wanted.
  bool is_one_more(std::string_view line) {
    const auto entry = parse_(line);
    if (!entry) return false;
    const bool counts = !entry->partial || last_;
    last_ = false;
    return counts && found_++ == lines_;
  }

  std::uint64_t lines_, found_ = 0;
  Parse parse_;
  bool last_ = true;
};

/// A file of the log that is not there ends the search for older ones.
std::optional<Fd> open_part(const std::string& path) {
  Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd) return fd;
  if (errno != ENOENT) throw_errno("open the log {}", path);
  return std::nullopt;
}

ino_t inode_of(int fd) {
  struct stat info {};
  return ::fstat(fd, &info) == 0 ? info.st_ino : 0;
}

/// The files of a log as they lie there, oldest first, from the one after `last` on (an inode; 0 = from the first).
std::deque<Fd> open_parts_once(const LogPlace& place, ino_t last) {
  std::deque<Fd> parts;
  for (int age = 0; age < place.files; ++age) {
    auto part = open_part(age == 0 ? place.path : fmt::format("{}.{}", place.path, age));
    if (!part && age == 0) continue;  // it is being replaced
    if (!part) break;
    const ino_t inode = inode_of(part->get());
    if (inode == last) break;
    if (parts.empty() || inode != inode_of(parts.front().get())) parts.push_front(std::move(*part));
  }
  return parts;
}

/// From the newest on, so that one which is renamed meanwhile is met again and not missed; once more where that
/// happened.
std::deque<Fd> open_parts(const LogPlace& place, ino_t last) {
  std::deque<Fd> parts;
  for (int attempt = 0; attempt < 10; ++attempt) {
    parts = open_parts_once(place, last);
    struct stat newest {};
    if (place.files == 1 || parts.empty() || ::stat(place.path.c_str(), &newest) != 0 ||
        newest.st_ino == inode_of(parts.back().get()))
      break;
  }
  return parts;
}

class LogFile {
 public:
  explicit LogFile(LogPlace place) : place_(std::move(place)), parts_(open_parts(place_, 0)) {}

  void seek_to_tail(std::uint64_t lines, Parse parse) {
    Tail tail(lines, parse);
    for (size_t part = parts_.size(); part-- > 0;) {
      const auto offset = tail.begin_in(parts_[part].get());
      if (!offset) continue;
      parts_.erase(parts_.begin(), parts_.begin() + static_cast<std::ptrdiff_t>(part));
      offset_ = *offset;
      return;
    }
  }

  /// Appends what is new to the buffer; false when there was nothing.
  bool read_more() {
    if (parts_.empty()) parts_ = open_parts(place_, 0);
    for (;;) {
      if (parts_.empty()) return false;
      char block[65536];
      const ssize_t got = ::pread(parts_.front().get(), block, sizeof block, offset_);
      if (got < 0) throw_errno("read the log {}", place_.path);
      if (got > 0) {
        offset_ += got;
        buffer_.append(block, static_cast<size_t>(got));
        return true;
      }
      if (!next_part()) return false;
    }
  }

  /// The next whole line; nullopt when there is none yet.
  std::optional<std::string> next_line() {
    const size_t newline = buffer_.find('\n', start_);
    if (newline == std::string::npos) {
      buffer_.erase(0, start_);
      start_ = 0;
      return std::nullopt;
    }
    std::string line = buffer_.substr(start_, newline - start_);
    start_ = newline + 1;
    return line;
  }

 private:
  /// max-size: what has been read to its end may not be the newest, or not any more.
  bool next_part() {
    const ino_t ours = inode_of(parts_.front().get());
    if (parts_.size() == 1) {
      struct stat current {};
      if (::stat(place_.path.c_str(), &current) != 0) return false;
      if (ours == current.st_ino) {
        if (current.st_size >= offset_) return false;
        offset_ = 0;  // cut by somebody else
        return true;
      }
      for (Fd& newer : open_parts(place_, ours)) parts_.push_back(std::move(newer));
    }
    if (parts_.size() == 1) return false;
    parts_.pop_front();
    offset_ = 0;
    return true;
  }

  LogPlace place_;
  std::deque<Fd> parts_;  ///< oldest first; the first is being read
  off_t offset_ = 0;
  std::string buffer_;
  size_t start_ = 0;
};

/// "2026-01-01T00:00:00.000000000+00:00 stdout F text" as our monitor writes it: every part but the text has its place.
constexpr size_t kStamp = 35, kTag = 43, kText = 45;

struct PlainLine {
  bool is_stderr = false, partial = false;
  std::string_view text;
};
std::optional<PlainLine> plain_line(std::string_view line) {
  if (line.size() >= kText - 1 && line[kStamp] == ' ' && line[kTag - 1] == ' ') {
    const std::string_view stream = line.substr(kStamp + 1, 6);
    const char tag = line[kTag];
    if ((stream == "stdout" || stream == "stderr") && (tag == 'F' || tag == 'P'))
      return PlainLine{stream == "stderr", tag == 'P', line.substr(std::min(kText, line.size()))};
  }
  return std::nullopt;
}

/// Collects what goes to one stream, so that it leaves in large pieces.
class Blocks {
 public:
  explicit Blocks(const TakeBlock& take) : take_(take) {}
  /// What ends the line stands behind its text.
  void add(const PlainLine& line) {
    std::string& block = blocks_[line.is_stderr ? 1 : 0];
    block.append(line.text.data(), line.text.size() + (line.partial ? 0 : 1));
    if (block.size() >= kBlock) flush();
  }
  void flush() {
    for (const bool is_stderr : {false, true}) {
      std::string& block = blocks_[is_stderr ? 1 : 0];
      if (!block.empty()) take_(is_stderr, block);
      block.clear();
    }
  }

 private:
  static constexpr size_t kBlock = 256 << 10;
  const TakeBlock& take_;
  std::string blocks_[2];
};

}  // namespace

bool copy_log(Context& context, const store::ContainerRecord& record, const LogOptions& options,
              const TakeBlock& take) {
  const std::string& driver = record.config.log_driver;
  if (options.since || options.until || options.tail || options.follow || (driver != "k8s-file" && !driver.empty()))
    return false;
  std::deque<Fd> parts = open_parts(place_of(context, record), 0);
  for (const Fd& part : parts) ::posix_fadvise(part.get(), 0, 0, POSIX_FADV_SEQUENTIAL);
  Blocks blocks(take);
  std::vector<char> buffer(1 << 20);
  size_t filled = 0;
  while (!parts.empty()) {
    const ssize_t got = ::read(parts.front().get(), buffer.data() + filled, buffer.size() - filled);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw_errno("read the log of container {}", record.name);
    if (got == 0) {
      parts.pop_front();
      continue;
    }
    filled += static_cast<size_t>(got);
    std::string_view rest(buffer.data(), filled);
    for (size_t newline = 0; (newline = rest.find('\n')) != std::string_view::npos; rest.remove_prefix(newline + 1)) {
      const std::string_view line = rest.substr(0, newline);
      if (const auto plain = plain_line(line))
        blocks.add(*plain);
      else if (const auto entry = parse_k8s_line(line))  // another engine's, or another zone
        blocks.add({entry->is_stderr, entry->partial, line.substr(line.size() - entry->text.size())});
    }
    filled = rest.size();
    std::copy(rest.begin(), rest.end(), buffer.begin());
    if (filled == buffer.size()) buffer.resize(buffer.size() * 2);  // one line of more than a megabyte
  }
  blocks.flush();
  return true;
}

void in_children(size_t count, const std::function<void(size_t)>& body) {
  std::vector<sys::Child> children;
  for (size_t i = 0; i < count; ++i)
    children.push_back(sys::clone_child(0, [&, i]() -> int {
      body(i);
      return 0;
    }));
  for (auto& child : children) child.wait();
}

std::optional<LogEntry> parse_k8s_line(std::string_view line) {
  const size_t first = line.find(' ');
  if (first == std::string_view::npos) return std::nullopt;
  const size_t second = line.find(' ', first + 1);
  if (second == std::string_view::npos || second + 2 > line.size()) return std::nullopt;
  const std::string_view stream = line.substr(first + 1, second - first - 1);
  const char tag = line[second + 1];
  if ((stream != "stdout" && stream != "stderr") || (tag != 'F' && tag != 'P')) return std::nullopt;
  LogEntry entry;
  try {
    entry.time = parse_rfc3339(line.substr(0, first));
  } catch (const Error&) {
    return std::nullopt;
  }
  entry.is_stderr = stream == "stderr";
  entry.partial = tag == 'P';
  if (second + 3 <= line.size()) entry.text = line.substr(second + 3);
  return entry;
}

std::optional<LogEntry> parse_json_line(std::string_view line) {
  const auto json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return std::nullopt;
  const auto text = json.find("log"), stream = json.find("stream"), time = json.find("time");
  if (text == json.end() || !text->is_string() || time == json.end() || !time->is_string()) return std::nullopt;
  LogEntry entry;
  try {
    entry.time = parse_rfc3339(time->get_ref<const std::string&>());
  } catch (const Error&) {
    return std::nullopt;
  }
  entry.is_stderr = stream != json.end() && *stream == "stderr";
  entry.text = text->get<std::string>();
  entry.partial = entry.text.empty() || entry.text.back() != '\n';
  if (!entry.partial) entry.text.pop_back();
  return entry;
}

bool has_log_file(std::string_view driver) noexcept {
  return driver != "journald" && driver != "none" && driver != "passthrough";
}

std::string log_path(const Context& context, const store::ContainerRecord& record) {
  const auto& config = record.config;
  if (config.log_driver == "none" || config.log_driver == "passthrough") {
    throw_error("the log driver {} of container {} keeps no log", config.log_driver, record.name);
  }
  const auto path = config.log_options.find("path");
  if (path != config.log_options.end()) return path->second;
  return context.layout.container(record.id) + "/ctr.log";
}

void read_logs(Context& context, const store::ContainerRecord& record, const LogOptions& options,
               const std::function<bool(const LogEntry&)>& take) {
  if (record.config.log_driver == "journald")
    return read_journal(
        record, options, [&] { return still_runs(context, record); }, take);
  const Parse parse = record.config.log_driver == "json-file" ? parse_json_line : parse_k8s_line;
  LogFile file(place_of(context, record));
  if (options.tail) file.seek_to_tail(*options.tail, parse);
  bool draining = !options.follow;
  for (;;) {
    const bool more = file.read_more();
    while (const auto line = file.next_line()) {
      const auto entry = parse(*line);
      if (!entry) continue;  // damaged: a crash in the middle of a write
      if (options.since && entry->time < *options.since) continue;
      if (options.until && entry->time > *options.until) return;
      if (!take(*entry)) return;
    }
    if (more) continue;
    if (draining) return;
    if (options.until && std::chrono::system_clock::now() > *options.until) return;
    // Asked before the last look at the file: what was written before the end is not missed.
    draining = !still_runs(context, record);
    if (!draining) ::poll(nullptr, 0, 100);
  }
}

}  // namespace kelp::engine
