#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <fmt/core.h>

namespace kelp::log {

enum class Level { trace, debug, info, warn, error, none };
enum class Format { text, json };

/// The process-wide sink. Text lines go to `fd` as "kelp: warning: ..." (prefix is the program's name);
/// json lines are {"level","msg","time"} as engines parse them from an OCI runtime.
struct Sink {
  int fd = 2;  ///< borrowed
  Level level = Level::warn;
  Format format = Format::text;
  std::string program = "kelp";
};
void set_sink(Sink sink);
const Sink& sink() noexcept;

/// "debug", "info", "warn"/"warning", "error", "none"…; throws UsageError naming the choices.
Level parse_level(std::string_view name);
const char* level_name(Level level) noexcept;

/// Diverts records, e.g. over the link of a child to its parent until exec; null restores the sink.
using Divert = void (*)(void* context, Level level, std::string_view text);
void divert(Divert to, void* context) noexcept;

bool enabled(Level level) noexcept;
/// One record, whatever its level; never throws. ANSI escapes and newlines in text are quoted.
void write(Level level, std::string_view text) noexcept;
/// `text` as one JSON string, with its quotes; bytes that are not UTF-8 become U+FFFD.
std::string json_quote(std::string_view text);

template <typename... T>
void debug(fmt::format_string<T...> format, T&&... args) {
  if (enabled(Level::debug)) write(Level::debug, fmt::format(format, std::forward<T>(args)...));
}
template <typename... T>
void info(fmt::format_string<T...> format, T&&... args) {
  if (enabled(Level::info)) write(Level::info, fmt::format(format, std::forward<T>(args)...));
}
/// We go on, but the user gets less than was asked for.
template <typename... T>
void warn(fmt::format_string<T...> format, T&&... args) {
  if (enabled(Level::warn)) write(Level::warn, fmt::format(format, std::forward<T>(args)...));
}
/// Only for main(): the error that ends the program.
template <typename... T>
void error(fmt::format_string<T...> format, T&&... args) {
  if (enabled(Level::error)) write(Level::error, fmt::format(format, std::forward<T>(args)...));
}

}  // namespace kelp::log
