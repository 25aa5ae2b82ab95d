#include "monitor/runtime_log.h"

#include <sys/mman.h>
#include <unistd.h>

#include "base/error.h"
#include "base/text.h"

namespace kelp::monitor {
namespace {

constexpr size_t kMaxLog = 1 << 20;

void append_utf8(std::string& out, unsigned code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xc0 | (code >> 6));
    out += static_cast<char>(0x80 | (code & 0x3f));
  } else {
    out += static_cast<char>(0xe0 | (code >> 12));
    out += static_cast<char>(0x80 | ((code >> 6) & 0x3f));
    out += static_cast<char>(0x80 | (code & 0x3f));
  }
}

/// The string member `key` of a one-line JSON object; "" when it is not there.
std::string member(std::string_view line, std::string_view key) {
  const std::string quoted_key = "\"" + std::string(key) + "\"";
  auto at = line.find(quoted_key);
  if (at == std::string_view::npos) return {};
  at += quoted_key.size();
  while (at < line.size() && (line[at] == ' ' || line[at] == ':')) ++at;
  if (at >= line.size() || line[at] != '"') return {};
  std::string value;
  for (++at; at < line.size() && line[at] != '"'; ++at) {
    if (line[at] != '\\' || at + 1 == line.size()) {
      value += line[at];
      continue;
    }
    switch (line[++at]) {
      case 'n':
        value += '\n';
        break;
      case 't':
        value += '\t';
        break;
      case 'r':
        value += '\r';
        break;
      case 'b':
        value += '\b';
        break;
      case 'f':
        value += '\f';
        break;
      case 'u': {
        unsigned code = 0;
        for (int i = 0; i < 4 && at + 1 < line.size(); ++i) {
          const char c = line[++at];
          const int digit = c >= '0' && c <= '9'                 ? c - '0'
                            : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10
                                                                 : 0;
          code = code * 16 + static_cast<unsigned>(digit);
        }
        append_utf8(value, code);
        break;
      }
      default:
        value += line[at];
    }
  }
  return value;
}

}  // namespace

RuntimeWords parse_runtime_log(std::string_view text) {
  RuntimeWords words;
  for (const auto& line : split(text, '\n')) {
    const std::string level = member(line, "level");
    std::string message(trim(member(line, "msg")));
    if (message.empty()) continue;
    if (level == "error" || level == "fatal" || level == "panic") {
      words.error = std::move(message);
      words.hint = member(line, "hint");
    } else if (level == "warning" || level == "warn") {
      words.warnings.push_back(std::move(message));
    }
  }
  return words;
}

RuntimeLog::RuntimeLog() : fd_(::memfd_create("runtime-log", MFD_CLOEXEC)) {
  if (!fd_) throw_errno("make the runtime's log");
}

RuntimeWords RuntimeLog::read() const {
  std::string text;
  char buffer[1024];
  ssize_t count = 0;
  while (text.size() < kMaxLog &&
         (count = ::pread(fd_.get(), buffer, sizeof buffer, static_cast<off_t>(text.size()))) > 0)
    text.append(buffer, static_cast<size_t>(count));
  return parse_runtime_log(text);
}

int exit_code_of_failed_start(std::string_view words) {
  const std::string lower = to_lower(words);
  const bool missing = lower.find("not found") != std::string::npos || lower.find("no such file") != std::string::npos;
  return missing ? kExitNotFound : kExitCannotInvoke;
}

int exit_code_of_words(std::string_view words) noexcept {
  const auto says = [words](std::string_view part) { return words.find(part) != std::string_view::npos; };
  if (says("executable file not found") || (says("exec") && says("no such file or directory")) ||
      (says("exec") && says("No such file or directory")))
    return kExitNotFound;
  if (says("exec") && (says("permission denied") || says("Permission denied") || says("is a directory")))
    return kExitCannotInvoke;
  return kExitFailure;
}

}  // namespace kelp::monitor
