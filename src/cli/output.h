#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json_fwd.hpp>

#include "cli/template.h"

/// Everything that reaches standard output goes through here: one buffer, one write, an error when it is refused.
namespace kelp::cli {

using Strings = std::vector<std::string>;

/// Writes all of it to standard output. throws SysError (disk full)
void print(std::string_view text);
void print_line(std::string_view text);
/// What accompanies the work, to standard error; a closed one is no error.
void print_beside(std::string_view text) noexcept;
/// Indented JSON with podman's four spaces and a newline.
std::string pretty_json(const Json& value);

/// Cells under headings, each column as wide as its widest cell + 2 and at least 12, as podman's.
std::string render_table(const std::vector<Strings>& rows);

/// A column of a listing: template field and heading.
struct Column {
  std::string_view field;
  std::string_view heading;
};

/// How a listing is to be printed.
struct ListFormat {
  std::string format;       ///< --format: "", "json", "table …", or a template for each row
  bool no_heading = false;  ///< --noheading
  bool quiet = false;       ///< -q: quiet_field alone
  std::string_view quiet_field;
  std::vector<Column> columns;   ///< of the default table
  std::vector<Column> headings;  ///< of further fields, for "table {{.Field}}"; default: the field in upper case words
};

/// rows: objects that hold every field that a template may name; json: what --format json prints (null: the rows).
/// throws UsageError for a bad template
std::string render_list(const ListFormat& how, const Json& rows, const Json* json);

/// `inspect`-like output: all objects as one JSON list, or the template for each. forms: Template::render's.
std::string render_objects(const std::string& format, const Json& objects, const JsonForms& forms = {});

/// "3 hours ago"
std::string age(std::chrono::system_clock::time_point since);
/// "2026-11-23 17:18:00.123456789 +0000 UTC", as Go prints a time.
std::string go_time(std::chrono::system_clock::time_point time);
/// Cut to `width` with "..." as tables show commands and ports.
std::string shorten(std::string_view text, size_t width);

bool stdout_is_terminal() noexcept;
bool stderr_is_terminal() noexcept;
bool stdin_is_terminal() noexcept;

/// Asks on the terminal; anything but y or yes is no. No terminal or end of input: no.
bool confirm(std::string_view question);

}  // namespace kelp::cli
