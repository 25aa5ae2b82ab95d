#include "sys/procfs.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <charconv>
#include <cstring>

#include "base/error.h"
#include "base/owned.h"
#include "base/text.h"

namespace kelp::sys {
namespace {

/// "\040" → " ": mountinfo escapes space, tab, newline and backslash.
std::string unescape_octal(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '3') {
      out += static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

/// The next field of a line of blank-separated fields; "" at the end.
std::string_view next_field(std::string_view& rest) {
  while (!rest.empty() && rest.front() == ' ') rest.remove_prefix(1);
  const size_t end = rest.find(' ');
  std::string_view field = rest.substr(0, end);
  rest.remove_prefix(end == std::string_view::npos ? rest.size() : end);
  return field;
}

template <typename Int>
bool next_number(std::string_view& rest, Int& value) {
  const std::string_view field = next_field(rest);
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  return error == std::errc() && end == field.data() + field.size();
}

bool parse_mount_line(std::string_view line, MountInfo& out) {
  std::string_view rest = line;
  if (!next_number(rest, out.id) || !next_number(rest, out.parent_id)) return false;
  const std::string_view device = next_field(rest);
  const size_t colon = device.find(':');
  if (colon == std::string_view::npos) return false;
  out.major = static_cast<unsigned>(to_int(device.substr(0, colon), 0, UINT32_MAX).value_or(0));
  out.minor = static_cast<unsigned>(to_int(device.substr(colon + 1), 0, UINT32_MAX).value_or(0));
  out.root = unescape_octal(next_field(rest));
  out.mount_point = unescape_octal(next_field(rest));
  out.options = next_field(rest);
  for (std::string_view field = next_field(rest); field != "-"; field = next_field(rest)) {
    if (field.empty()) return false;
    out.propagation.emplace_back(field);
  }
  out.fs_type = unescape_octal(next_field(rest));
  out.source = unescape_octal(next_field(rest));
  out.super_options = unescape_octal(next_field(rest));
  return true;
}

constexpr int kReadFlags = O_RDONLY | O_CLOEXEC | O_NOCTTY;

bool is_missing(int error) noexcept { return error == ENOENT || error == ESRCH || error == ENOTDIR || error == ENODEV; }

/// 0, or the errno of a read. throws Error when there is more than `max`
int read_to_end(int fd, const std::string& path, size_t max, std::string& text) {
  size_t chunk = 4096;
  for (;;) {
    const size_t have = text.size();
    text.resize(have + chunk);
    const ssize_t n = ::read(fd, text.data() + have, chunk);
    if (n < 0 && errno == EINTR) {
      text.resize(have);
      continue;
    }
    if (n < 0) return errno;
    text.resize(have + static_cast<size_t>(n));
    if (n == 0) return 0;
    if (text.size() > max) throw_error("{} is larger than {} bytes", path, max);
    if (chunk < 65536) chunk *= 2;
  }
}

}  // namespace

std::string read_file(const std::string& path, size_t max) {
  Fd file(::open(path.c_str(), kReadFlags));
  if (!file) throw_errno("open {}", path);
  std::string text;
  if (const int failed = read_to_end(file.get(), path, max, text); failed != 0)
    throw SysError(fmt::format("read {}", path), failed);
  return text;
}

std::optional<std::string> try_read_file(const std::string& path, size_t max) {
  // Without a throw: what is not there is an ordinary answer on the way of every start.
  Fd file(::open(path.c_str(), kReadFlags));
  if (!file) {
    if (is_missing(errno)) return std::nullopt;
    throw_errno("open {}", path);
  }
  std::string text;
  const int failed = read_to_end(file.get(), path, max, text);
  if (failed == 0) return text;
  if (is_missing(failed)) return std::nullopt;
  throw SysError(fmt::format("read {}", path), failed);
}

void write_file(const std::string& path, std::string_view value) {
  Fd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY));
  if (!file) throw_errno("open {} for writing", path);
  ssize_t n;
  do {
    n = ::write(file.get(), value.data(), value.size());
  } while (n < 0 && errno == EINTR);
  if (n < 0) throw_errno("write {} to {}", quoted(value), path);
  if (static_cast<size_t>(n) != value.size())
    throw_error("write {} to {}: only {} bytes taken", quoted(value), path, n);
}

std::optional<ProcStat> read_stat(pid_t pid) {
  const auto text = try_read_file(fmt::format("/proc/{}/stat", pid), 65536);
  if (!text) return std::nullopt;
  // The name may hold blanks and parentheses: it ends at the last one.
  const size_t open = text->find('(');
  const size_t close = text->rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  ProcStat stat;
  stat.pid = pid;
  stat.comm = text->substr(open + 1, close - open - 1);
  std::string_view rest = std::string_view(*text).substr(close + 1);
  const std::string_view state = next_field(rest);
  if (state.empty()) return std::nullopt;
  stat.state = state.front();
  if (!next_number(rest, stat.ppid) || !next_number(rest, stat.pgrp) || !next_number(rest, stat.session))
    return std::nullopt;
  for (int field = 7; field < 14; ++field) next_field(rest);  // tty … cmajflt
  if (!next_number(rest, stat.utime) || !next_number(rest, stat.stime)) return std::nullopt;
  for (int field = 16; field < 22; ++field) next_field(rest);  // cutime … itrealvalue
  if (!next_number(rest, stat.start_time)) return std::nullopt;
  return stat;
}

std::uint64_t start_time(pid_t pid) {
  const auto stat = read_stat(pid);
  return stat ? stat->start_time : 0;
}

const std::string& boot_id() {
  static const std::string id = [] {
    const auto text = try_read_file("/proc/sys/kernel/random/boot_id", 256);
    return std::string(trim(text.value_or("")));
  }();
  return id;
}

bool no_new_privs() { return ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1; }

std::vector<MountInfo> parse_mountinfo(std::string_view text) {
  std::vector<MountInfo> mounts;
  while (!text.empty()) {
    const size_t end = text.find('\n');
    MountInfo mount;
    if (parse_mount_line(text.substr(0, end), mount)) mounts.push_back(std::move(mount));
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
  }
  return mounts;
}

std::vector<MountInfo> read_mountinfo(const std::string& path) { return parse_mountinfo(read_file(path, 64 << 20)); }

}  // namespace kelp::sys
