#include "cli/output.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <ctime>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"

namespace kelp::cli {
namespace {

/// "CreatedAt" → "CREATED AT", "ID" → "ID".
std::string heading_of(std::string_view field) {
  std::string out;
  for (size_t i = 0; i < field.size(); ++i) {
    const auto c = static_cast<unsigned char>(field[i]);
    if (i > 0 && std::isupper(c) != 0 && std::islower(static_cast<unsigned char>(field[i - 1])) != 0) out += ' ';
    out += static_cast<char>(std::toupper(c));
  }
  return out;
}

/// Columns as terminals count them: code points, close enough for names and paths.
size_t display_width(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

Json header_values(const ListFormat& how, const Json& rows) {
  Json header = Json::object();
  if (rows.is_array() && !rows.empty()) {
    for (const auto& entry : rows.front().items()) header[entry.key()] = heading_of(entry.key());
  }
  for (const Column& column : how.headings) header[std::string(column.field)] = column.heading;
  for (const Column& column : how.columns) header[std::string(column.field)] = column.heading;
  return header;
}

std::string strip_prefix_word(std::string_view text) {
  text.remove_prefix(5);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  if (starts_with(text, "\\t")) text.remove_prefix(2);
  // Blanks between fields are columns, as podman has it.
  std::string columns(text);
  std::replace(columns.begin(), columns.end(), ' ', '\t');
  return columns;
}

std::string render_user_template(const ListFormat& how, const Json& rows) {
  const bool table = how.format == "table" || starts_with(how.format, "table ") || starts_with(how.format, "table\\t");
  const Template row_template(table ? strip_prefix_word(how.format) : how.format);
  std::string out;
  std::vector<Strings> lines;
  const auto add = [&](std::string line) {
    if (table) {
      for (auto& piece : split(line, '\n')) lines.push_back(split(piece, '\t'));
    } else {
      out += line;
      if (line.empty() || line.back() != '\n') out += '\n';
    }
  };
  if (table && !how.no_heading) add(row_template.render_header(header_values(how, rows)));
  for (const Json& row : rows) add(row_template.render(row));
  return table ? render_table(lines) : out;
}

std::string cell(const Json& row, std::string_view field) {
  const auto found = row.find(std::string(field));
  if (found == row.end()) return "";
  std::string text = found->is_string() ? found->get<std::string>() : go_print(*found);
  return printable(text);
}

}  // namespace

void print(std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(STDOUT_FILENO, text.data(), text.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw_errno("write to standard output");
    }
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void print_line(std::string_view text) { print(std::string(text) + "\n"); }

void print_beside(std::string_view text) noexcept {
  while (!text.empty()) {
    const ssize_t written = ::write(STDERR_FILENO, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<size_t>(written));
  }
}

std::string pretty_json(const Json& value) { return value.dump(4, ' ', false, Json::error_handler_t::replace) + "\n"; }

std::string render_table(const std::vector<Strings>& rows) {
  constexpr size_t kMinimum = 12, kGap = 2;
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    // The last cell of a row does not widen its column, as in Go's tabwriter.
    for (size_t i = 0; i + 1 < row.size(); ++i) {
      if (widths.size() <= i) widths.resize(i + 1, kMinimum);
      widths[i] = std::max(widths[i], display_width(row[i]) + kGap);
    }
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      line += row[i];
      if (i + 1 < row.size()) line.append(widths[i] - display_width(row[i]), ' ');
    }
    const size_t last = line.find_last_not_of(' ');
    line.erase(last == std::string::npos ? 0 : last + 1);
    out += line + "\n";
  }
  return out;
}

std::string render_list(const ListFormat& how, const Json& rows, const Json* json) {
  if (how.format == "json") return pretty_json(json != nullptr ? *json : rows);
  if (how.quiet && how.format.empty()) {
    std::string out;
    for (const Json& row : rows) out += cell(row, how.quiet_field) + "\n";
    return out;
  }
  if (!how.format.empty() && how.format != "table") return render_user_template(how, rows);
  std::vector<Strings> lines;
  if (!how.no_heading) {
    Strings heading;
    for (const Column& column : how.columns) heading.emplace_back(column.heading);
    lines.push_back(std::move(heading));
  }
  for (const Json& row : rows) {
    Strings line;
    for (const Column& column : how.columns) line.push_back(cell(row, column.field));
    lines.push_back(std::move(line));
  }
  return render_table(lines);
}

std::string render_objects(const std::string& format, const Json& objects, const JsonForms& forms) {
  if (format.empty() || format == "json") return pretty_json(objects);
  const Template object_template(format);
  std::string out;
  for (const Json& object : objects) {
    out += object_template.render(object, forms);
    out += '\n';
  }
  return out;
}

std::string age(std::chrono::system_clock::time_point since) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - since);
  return human_duration(seconds) + " ago";
}

std::string go_time(std::chrono::system_clock::time_point time) {
  const auto nanoseconds = std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count();
  std::time_t seconds = nanoseconds / 1'000'000'000;
  auto fraction = nanoseconds % 1'000'000'000;
  if (fraction < 0) {
    fraction += 1'000'000'000;
    --seconds;
  }
  std::tm parts{};
  ::localtime_r(&seconds, &parts);
  const long offset = std::abs(parts.tm_gmtoff);
  std::string digits;
  if (fraction != 0) {
    digits = fmt::format(".{:09}", fraction);
    digits.erase(digits.find_last_not_of('0') + 1);
  }
  return fmt::format("{:04}-{:02}-{:02} {:02}:{:02}:{:02}{} {}{:02}{:02} {}", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, digits, parts.tm_gmtoff < 0 ? '-' : '+',
                     offset / 3600, offset / 60 % 60, parts.tm_zone);
}

std::string shorten(std::string_view text, size_t width) {
  if (text.size() <= width) return std::string(text);
  size_t cut = width > 3 ? width - 3 : 0;
  while (cut > 0 && (text[cut] & 0xc0) == 0x80) --cut;  // never inside a UTF-8 sequence
  return std::string(text.substr(0, cut)) + "...";
}

bool stdout_is_terminal() noexcept { return ::isatty(STDOUT_FILENO) == 1; }
bool stderr_is_terminal() noexcept { return ::isatty(STDERR_FILENO) == 1; }
bool stdin_is_terminal() noexcept { return ::isatty(STDIN_FILENO) == 1; }

bool confirm(std::string_view question) {
  print(question);
  std::string answer;
  char c = 0;
  while (::read(STDIN_FILENO, &c, 1) == 1 && c != '\n') answer += c;
  const std::string word = to_lower(trim(answer));
  return word == "y" || word == "yes";
}

}  // namespace kelp::cli
