#include "base/log.h"

#include <unistd.h>

#include <array>
#include <ctime>

#include "base/error.h"
#include "base/failure.h"
#include "base/text.h"

namespace kelp::log {
namespace {

Sink g_sink;
Divert g_divert = nullptr;
void* g_divert_context = nullptr;

constexpr std::array<const char*, 6> kNames = {"trace", "debug", "info", "warning", "error", "none"};

std::string timestamp() {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  tm parts{};
  ::gmtime_r(&now.tv_sec, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:09}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, now.tv_nsec);
}

void write_all(int fd, std::string_view data) noexcept {
  while (!data.empty()) {
    const ssize_t n = ::write(fd, data.data(), data.size());
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return;  // a log that cannot be written must not stop the work
    data.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace

void set_sink(Sink sink) { g_sink = std::move(sink); }
const Sink& sink() noexcept { return g_sink; }

Level parse_level(std::string_view name) {
  if (name == "warn" || name == "warning") return Level::warn;
  if (name == "fatal" || name == "panic") return Level::error;
  for (size_t i = 0; i < kNames.size(); ++i)
    if (name == kNames[i]) return static_cast<Level>(i);
  throw_usage("log level {} is not one of trace, debug, info, warn, error, none", quoted(name));
}

const char* level_name(Level level) noexcept { return kNames[static_cast<size_t>(level)]; }

void divert(Divert to, void* context) noexcept {
  g_divert = to;
  g_divert_context = context;
}

bool enabled(Level level) noexcept { return level >= g_sink.level && g_sink.level != Level::none; }

void write(Level level, std::string_view text) noexcept {
  try {
    if (g_divert != nullptr) {
      g_divert(g_divert_context, level, text);
      return;
    }
    std::string line;
    if (g_sink.format == Format::json) {
      line = fmt::format("{{\"level\":\"{}\",\"msg\":{},\"time\":\"{}\"}}\n", level_name(level), json_quote(text),
                         timestamp());
    } else if (level == Level::error) {
      line = fmt::format("{}: {}\n", g_sink.program, printable(text));
    } else {
      line = fmt::format("{}: {}: {}\n", g_sink.program, level_name(level), printable(text));
    }
    write_all(g_sink.fd, line);
  } catch (...) {  // out of memory while logging: the record is lost, the work goes on
  }
}

void failure(std::string_view text, std::string_view hint) noexcept {
  if (!enabled(Level::error)) return;
  try {
    if (g_sink.format == Format::text) {
      write(Level::error, text);
      if (!hint.empty()) write_all(g_sink.fd, fmt::format("hint: {}\n", printable(hint)));
      return;
    }
    const std::string member = hint.empty() ? "" : fmt::format("\"hint\":{},", json_quote(hint));
    write_all(g_sink.fd, fmt::format("{{\"level\":\"error\",\"msg\":{},{}\"time\":\"{}\"}}\n", json_quote(text), member,
                                     timestamp()));
  } catch (...) {  // as in write()
  }
}

std::string json_quote(std::string_view text) {
  std::string out = "\"";
  for (size_t i = 0; i < text.size();) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
      ++i;
    } else if (c == '\n') {
      out += "\\n";
      ++i;
    } else if (c == '\t') {
      out += "\\t";
      ++i;
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
      ++i;
    } else if (c < 0x80) {
      out += static_cast<char>(c);
      ++i;
    } else {
      const size_t length = utf8_sequence_length(text.substr(i));
      if (length == 0) {
        out += "\\ufffd";
        ++i;
      } else {
        out.append(text.substr(i, length));
        i += length;
      }
    }
  }
  return out += '"';
}

}  // namespace kelp::log
