#include "monitor/log_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include <fmt/core.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"

namespace kelp::monitor {
namespace {

/// Lines are laid out here and leave in one write(2): a write per line would take ten times as long. What one read of
/// the streams gives fits in whole, unless its lines are very short.
char buffer[131072];

/// "2026-01-01T00:00:00.000000000" and the zone as the format has it.
size_t format_time(char* into, size_t room, const char* zone) {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  static time_t last = -1;
  static char seconds[32];
  if (now.tv_sec != last) {
    const std::string text = format_rfc3339(std::chrono::system_clock::time_point(std::chrono::seconds(now.tv_sec)));
    text.copy(seconds, 19);
    last = now.tv_sec;
  }
  return static_cast<size_t>(std::snprintf(into, room, "%s.%09ld%s", seconds, now.tv_nsec, zone));
}

}  // namespace

LogFile::LogFile(LogFormat format, std::string path, std::int64_t max_size, std::int64_t max_files)
    : format_(format), path_(std::move(path)), max_size_(max_size), max_files_(max_files) {
  if (format_ != LogFormat::none) open();
}

void LogFile::open() {
  fd_ = Fd(::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600));
  if (!fd_) throw_errno("open the log {}", path_);
  struct stat info {};
  size_ = ::fstat(fd_.get(), &info) == 0 ? info.st_size : 0;
}

void LogFile::append(std::string_view text) {
  while (!text.empty()) {
    if (filled_ == sizeof buffer) flush();
    const size_t part = std::min(text.size(), sizeof buffer - filled_);
    std::memcpy(buffer + filled_, text.data(), part);
    filled_ += part;
    text.remove_prefix(part);
  }
}

void LogFile::append_line(std::string_view prefix, std::string_view line) {
  if (prefix.size() + line.size() + 1 > sizeof buffer - filled_) flush();
  if (prefix.size() + line.size() + 1 > sizeof buffer) {
    append(prefix);
    append(line);
    append("\n");
    return;
  }
  char* at = buffer + filled_;
  std::memcpy(at, prefix.data(), prefix.size());
  std::memcpy(at + prefix.size(), line.data(), line.size());
  at[prefix.size() + line.size()] = '\n';
  filled_ += prefix.size() + line.size() + 1;
}

void LogFile::flush() {
  size_t done = 0;
  while (done < filled_ && fd_) {
    const ssize_t count = ::write(fd_.get(), buffer + done, filled_ - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      if (!warned_) log::warn("the log {} cannot be written: {}", path_, errno_text(errno));
      warned_ = true;
      break;
    }
    done += static_cast<size_t>(count);
  }
  size_ += static_cast<std::int64_t>(done);
  filled_ = 0;
}

void LogFile::rotate() {
  // The oldest is replaced. Readers that have one open go on reading it, and know by its inode which comes next.
  for (std::int64_t age = max_files_ - 1; age > 1; --age)
    ::rename(fmt::format("{}.{}", path_, age - 1).c_str(), fmt::format("{}.{}", path_, age).c_str());
  if ((max_files_ > 1 ? ::rename(path_.c_str(), (path_ + ".1").c_str()) : ::unlink(path_.c_str())) < 0) return;
  try {
    open();
  } catch (const Error& error) {
    log::warn("{}", error.message());
  }
}

void LogFile::write(unsigned stream, std::string_view bytes) {
  if (format_ == LogFormat::none || bytes.empty()) return;
  if (format_ == LogFormat::journal) return journal_.write(stream, bytes);
  const char* const name = stream == 2 ? "stderr" : "stdout";
  char stamp[64];
  const size_t stamp_size = format_time(stamp, sizeof stamp, format_ == LogFormat::k8s_file ? "+00:00" : "Z");
  const std::string_view time(stamp, stamp_size);
  // "TIME STREAM F ", the same for all lines of this turn; the tag is the last but one.
  char prefix[96];
  const size_t prefix_size = static_cast<size_t>(
      std::snprintf(prefix, sizeof prefix, "%.*s %s F ", static_cast<int>(time.size()), time.data(), name));
  while (!bytes.empty()) {
    const auto newline = bytes.find('\n');
    const bool whole = newline != std::string_view::npos;
    const std::string_view line = bytes.substr(0, whole ? newline : bytes.size());
    // Between lines only, never within the parts of one, and when the next one comes: the last one stays in sight.
    if (std::exchange(full_, false)) {
      flush();
      rotate();
    }
    bytes.remove_prefix(line.size() + (whole ? 1 : 0));
    if (format_ == LogFormat::k8s_file) {
      prefix[prefix_size - 2] = whole ? 'F' : 'P';
      append_line({prefix, prefix_size}, line);
    } else {
      append("{\"log\":");
      append(log::json_quote(std::string(line) + (whole ? "\n" : "")));
      append(",\"stream\":\"");
      append(name);
      append("\",\"time\":\"");
      append(time);
      append("\"}\n");
    }
    full_ = whole && max_size_ > 0 && size_ + static_cast<std::int64_t>(filled_) >= max_size_;
  }
  flush();
}

}  // namespace kelp::monitor
