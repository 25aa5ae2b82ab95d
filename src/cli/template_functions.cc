#include "cli/template_functions.h"

#include <algorithm>
#include <cctype>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/text.h"
#include "cli/template_ast.h"

namespace kelp::cli {
namespace {

using Values = std::vector<TemplateValue>;
using detail::template_error;

struct Call {
  const std::string& name;
  size_t at;
  const Values& arguments;

  [[noreturn]] void fail(std::string_view message) const { template_error(at, fmt::format("{}: {}", name, message)); }
  void need(size_t min, size_t max) const {
    if (arguments.size() < min || arguments.size() > max) {
      fail(fmt::format("wrong number of arguments: {}", arguments.size()));
    }
  }
  [[nodiscard]] std::string text(size_t index) const {
    const Json& value = arguments[index].get();
    if (!value.is_string()) return go_print(value);
    return value.get<std::string>();
  }
  [[nodiscard]] std::int64_t integer(size_t index) const {
    const Json& value = arguments[index].get();
    if (!value.is_number_integer()) fail(fmt::format("{} is not a whole number", kelp::quoted(go_print(value))));
    return value.get<std::int64_t>();
  }
};

/// <0, 0, >0; numbers with numbers, strings with strings.
int compare(const Call& call, const Json& left, const Json& right) {
  if (left.is_number() && right.is_number()) {
    if (left.is_number_float() || right.is_number_float()) {
      const double a = left.get<double>(), b = right.get<double>();
      return a < b ? -1 : (a > b ? 1 : 0);
    }
    const auto a = left.get<std::int64_t>(), b = right.get<std::int64_t>();
    return a < b ? -1 : (a > b ? 1 : 0);
  }
  if (left.is_string() && right.is_string()) {
    return left.get_ref<const std::string&>().compare(right.get_ref<const std::string&>());
  }
  call.fail("incompatible types for comparison");
}

bool equal(const Call& call, const Json& left, const Json& right) {
  if (left.is_null() || right.is_null()) return left.is_null() && right.is_null();
  if (left.is_boolean() && right.is_boolean()) return left == right;
  if (left.is_structured() || right.is_structured()) call.fail("lists and maps cannot be compared");
  return compare(call, left, right) == 0;
}

TemplateValue boolean(bool value) { return TemplateValue::own(Json(value)); }
TemplateValue string(std::string value) { return TemplateValue::own(Json(std::move(value))); }

TemplateValue eq(const Call& call) {
  call.need(2, 100);
  for (size_t i = 1; i < call.arguments.size(); ++i) {
    if (equal(call, call.arguments[0].get(), call.arguments[i].get())) return boolean(true);
  }
  return boolean(false);
}
TemplateValue ne(const Call& call) {
  call.need(2, 2);
  return boolean(!equal(call, call.arguments[0].get(), call.arguments[1].get()));
}
TemplateValue ordered(const Call& call) {
  call.need(2, 2);
  const int order = compare(call, call.arguments[0].get(), call.arguments[1].get());
  if (call.name == "lt") return boolean(order < 0);
  if (call.name == "le") return boolean(order <= 0);
  if (call.name == "gt") return boolean(order > 0);
  return boolean(order >= 0);
}
TemplateValue not_(const Call& call) {
  call.need(1, 1);
  return boolean(!template_truth(call.arguments[0]));
}

TemplateValue len(const Call& call) {
  call.need(1, 1);
  const Json& value = call.arguments[0].get();
  if (value.is_string()) return TemplateValue::own(Json(value.get_ref<const std::string&>().size()));
  if (value.is_structured()) return TemplateValue::own(Json(value.size()));
  if (value.is_null()) return TemplateValue::own(Json(0));
  call.fail("needs a string, a list or a map");
}

TemplateValue index(const Call& call) {
  call.need(1, 100);
  TemplateValue value = call.arguments[0];
  for (size_t i = 1; i < call.arguments.size(); ++i) {
    const Json& holder = value.get();
    const Json& key = call.arguments[i].get();
    if (holder.is_object() && key.is_string()) {
      const auto found = holder.find(key.get_ref<const std::string&>());
      if (found == holder.end()) return string("");  // the zero value of a map of strings
      value = TemplateValue::view(*found, value);
    } else if (holder.is_array() && key.is_number_integer()) {
      const auto at = key.get<std::int64_t>();
      if (at < 0 || static_cast<size_t>(at) >= holder.size()) {
        call.fail(fmt::format("index {} out of range, there are {}", at, holder.size()));
      }
      value = TemplateValue::view(holder[static_cast<size_t>(at)], value);
    } else if (holder.is_null()) {
      call.fail("index of nothing");
    } else {
      call.fail(fmt::format("{} does not fit as an index here", kelp::quoted(go_print(key))));
    }
  }
  return value;
}

TemplateValue slice(const Call& call) {
  call.need(1, 3);
  const Json& value = call.arguments[0].get();
  if (!value.is_string() && !value.is_array()) call.fail("needs a string or a list");
  const size_t size = value.is_string() ? value.get_ref<const std::string&>().size() : value.size();
  const std::int64_t from = call.arguments.size() > 1 ? call.integer(1) : 0;
  const std::int64_t to = call.arguments.size() > 2 ? call.integer(2) : static_cast<std::int64_t>(size);
  if (from < 0 || to < from || static_cast<size_t>(to) > size) {
    call.fail(fmt::format("{} to {} is out of range, there are {}", from, to, size));
  }
  if (value.is_string()) {
    return string(
        value.get_ref<const std::string&>().substr(static_cast<size_t>(from), static_cast<size_t>(to - from)));
  }
  Json part = Json::array();
  for (auto i = from; i < to; ++i) part.push_back(value[static_cast<size_t>(i)]);
  return TemplateValue::own(std::move(part));
}

/// As Go prints a duration: 1h2m3s, 1.5s, 300ms, 0s.
std::string go_duration(std::chrono::nanoseconds time) {
  const std::int64_t count = time.count();
  const std::uint64_t all = count < 0 ? 0 - static_cast<std::uint64_t>(count) : static_cast<std::uint64_t>(count);
  constexpr std::uint64_t kSecond = 1'000'000'000;
  std::string text = count < 0 ? "-" : "";
  const auto add = [&text](std::uint64_t value, std::uint64_t unit, const char* name) {
    text += std::to_string(value / unit);
    if (value % unit != 0) {
      // All digits of the unit, without the zeros at the end.
      std::string digits = std::to_string(unit + value % unit).substr(1);
      digits.erase(digits.find_last_not_of('0') + 1);
      text += "." + digits;
    }
    text += name;
  };
  if (all == 0) return "0s";
  if (all < kSecond) {
    if (all < 1000)
      add(all, 1, "ns");
    else if (all < 1'000'000)
      add(all, 1000, "µs");
    else
      add(all, 1'000'000, "ms");
    return text;
  }
  const std::uint64_t minutes = all / kSecond / 60;
  if (minutes >= 60) text += std::to_string(minutes / 60) + "h";
  if (minutes > 0) text += std::to_string(minutes % 60) + "m";
  add(all % (60 * kSecond), kSecond, "s");
  return text;
}

std::string go_quote(std::string_view text) {
  return Json(std::string(text)).dump(-1, ' ', false, Json::error_handler_t::replace);
}

/// One verb of printf: flags, width, precision.
std::string print_verb(const Call& call, char verb, std::string flags, const Json& value) {
  std::string body;
  switch (verb) {
    case 'v':
    case 's':
      body = go_print(value);
      break;
    case 'q':
      body = go_quote(value.is_string() ? value.get_ref<const std::string&>() : go_print(value));
      break;
    case 'd':
      if (!value.is_number_integer()) return fmt::format("%!d({})", go_print(value));
      body = go_print(value);
      break;
    case 'x':
    case 'X':
      if (value.is_number_integer()) {
        body = fmt::format("{:x}", value.get<std::int64_t>());
      } else {
        for (const char c : go_print(value)) body += fmt::format("{:02x}", static_cast<unsigned char>(c));
      }
      if (verb == 'X')
        std::transform(body.begin(), body.end(), body.begin(), [](unsigned char c) { return std::toupper(c); });
      break;
    case 't':
      body = go_print(value);
      break;
    case 'f':
    case 'e':
    case 'g': {
      if (!value.is_number()) return fmt::format("%!{}({})", verb, go_print(value));
      const size_t dot = flags.find('.');
      const auto digits = dot == std::string::npos ? 6 : to_int(flags.substr(dot + 1), 0, 100).value_or(0);
      const int precision = static_cast<int>(digits);
      body = verb == 'f'   ? fmt::format("{:.{}f}", value.get<double>(), precision)
             : verb == 'e' ? fmt::format("{:.{}e}", value.get<double>(), precision)
                           : fmt::format("{}", value.get<double>());
      break;
    }
    default:
      call.fail(fmt::format("unknown verb %{}", printable(std::string(1, verb))));
  }
  const size_t dot = flags.find('.');
  if (dot != std::string::npos && (verb == 's' || verb == 'v')) {
    body = body.substr(0, static_cast<size_t>(to_int(flags.substr(dot + 1), 0, 1'000'000).value_or(0)));
  }
  flags = flags.substr(0, dot);
  const bool left = !flags.empty() && flags[0] == '-';
  const bool zero = !flags.empty() && flags[0] == '0';
  if (!flags.empty() && (flags[0] == '-' || flags[0] == '+' || flags[0] == '#')) flags.erase(0, 1);
  const auto width = static_cast<size_t>(to_int(flags.empty() ? "0" : flags, 0, 1'000'000).value_or(0));
  if (body.size() < width) {
    const std::string fill(width - body.size(), zero ? '0' : ' ');
    body = left ? body + fill : fill + body;
  }
  return body;
}

TemplateValue printf(const Call& call) {
  call.need(1, 100);
  const std::string format = call.text(0);
  std::string out;
  size_t argument = 1;
  for (size_t i = 0; i < format.size(); ++i) {
    if (format[i] != '%') {
      out += format[i];
      continue;
    }
    std::string flags;
    while (++i < format.size() && std::string_view("-+#0123456789.").find(format[i]) != std::string_view::npos) {
      flags += format[i];
    }
    if (i >= format.size()) {
      out += "%!(NOVERB)";
    } else if (format[i] == '%') {
      out += '%';
    } else if (argument >= call.arguments.size()) {
      out += fmt::format("%!{}(MISSING)", format[i]);
    } else {
      out += print_verb(call, format[i], flags, call.arguments[argument++].get());
    }
  }
  return string(out);
}

TemplateValue print(const Call& call) {
  std::string out;
  bool last_string = true;
  for (size_t i = 0; i < call.arguments.size(); ++i) {
    const bool is_string = call.arguments[i].get().is_string();
    const bool spaced = call.name == "println" ? i > 0 : (i > 0 && !is_string && !last_string);
    if (spaced) out += ' ';
    out += call.arguments[i].missing ? "<no value>" : go_print(call.arguments[i]);
    last_string = is_string;
  }
  if (call.name == "println") out += '\n';
  return string(out);
}

TemplateValue json(const Call& call) {
  call.need(1, 1);
  return string(call.arguments[0].get().dump(-1, ' ', false, Json::error_handler_t::replace));
}

TemplateValue join_(const Call& call) {
  call.need(2, 2);
  // Go's strings.Join order; a pipeline puts the list last ({{.Names | join ","}}), which works as well.
  const size_t list = call.arguments[0].get().is_array() || call.arguments[0].get().is_null() ? 0 : 1;
  const Json& items = call.arguments[list].get();
  if (!items.is_array() && !items.is_null()) call.fail("needs a list and a separator");
  std::vector<std::string> parts;
  for (const Json& item : items) parts.push_back(go_print(item));
  return string(kelp::join(parts, call.text(1 - list)));
}

TemplateValue split_(const Call& call) {
  call.need(2, 2);
  const std::string text = call.text(0), separator = call.text(1);
  Json parts = Json::array();
  if (separator.empty()) {
    for (const char c : text) parts.push_back(std::string(1, c));
    return TemplateValue::own(std::move(parts));
  }
  size_t from = 0;
  for (size_t found = text.find(separator); found != std::string::npos; found = text.find(separator, from)) {
    parts.push_back(text.substr(from, found - from));
    from = found + separator.size();
  }
  parts.push_back(text.substr(from));
  return TemplateValue::own(std::move(parts));
}

TemplateValue letter_case(const Call& call) {
  call.need(1, 1);
  std::string text = call.text(0);
  bool word_start = true;
  for (char& c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (call.name == "lower") c = static_cast<char>(std::tolower(byte));
    if (call.name == "upper" || (call.name == "title" && word_start)) c = static_cast<char>(std::toupper(byte));
    word_start = std::isspace(byte) != 0;
  }
  return string(text);
}

TemplateValue truncate(const Call& call) {
  call.need(2, 2);
  const size_t text = call.arguments[0].get().is_number() ? 1 : 0;
  const std::int64_t length = call.integer(1 - text);
  const std::string whole = call.text(text);
  if (length < 0) call.fail("a negative length");
  return string(whole.substr(0, static_cast<size_t>(length)));
}

TemplateValue pad(const Call& call) {
  call.need(3, 3);
  const std::string text = call.text(0);
  if (text.empty()) return string(text);
  return string(std::string(static_cast<size_t>(std::max<std::int64_t>(0, call.integer(1))), ' ') + text +
                std::string(static_cast<size_t>(std::max<std::int64_t>(0, call.integer(2))), ' '));
}

TemplateValue escape(const Call& call) {
  std::string out;
  for (const TemplateValue& value : call.arguments) {
    for (const char c : go_print(value.get())) {
      if (call.name == "urlquery") {
        const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                           std::string_view("-_.~").find(c) != std::string_view::npos;
        out += plain ? std::string(1, c) : (c == ' ' ? "+" : fmt::format("%{:02X}", static_cast<unsigned char>(c)));
        continue;
      }
      if (call.name == "js") {
        if (std::string_view("\"'\\").find(c) != std::string_view::npos) out += '\\';
        out += c;
        continue;
      }
      switch (c) {
        case '<':
          out += "&lt;";
          break;
        case '>':
          out += "&gt;";
          break;
        case '&':
          out += "&amp;";
          break;
        case '"':
          out += "&#34;";
          break;
        case '\'':
          out += "&#39;";
          break;
        default:
          out += c;
      }
    }
  }
  return string(out);
}

struct Function {
  const char* name;
  TemplateValue (*call)(const Call&);
};
constexpr Function kFunctions[] = {
    {"eq", eq},
    {"ne", ne},
    {"lt", ordered},
    {"le", ordered},
    {"gt", ordered},
    {"ge", ordered},
    {"not", not_},
    {"len", len},
    {"index", index},
    {"slice", slice},
    {"printf", printf},
    {"print", print},
    {"println", print},
    {"json", json},
    {"join", join_},
    {"split", split_},
    {"lower", letter_case},
    {"upper", letter_case},
    {"title", letter_case},
    {"truncate", truncate},
    {"pad", pad},
    {"html", escape},
    {"js", escape},
    {"urlquery", escape},
};

}  // namespace

TemplateValue TemplateValue::own(Json value) {
  auto owned = std::make_shared<const Json>(std::move(value));
  return {owned.get(), owned, false, false};
}

TemplateValue TemplateValue::none() {
  TemplateValue value = own(Json());
  value.missing = true;
  return value;
}

bool template_truth(const TemplateValue& value) {
  if (value.missing) return false;
  const Json& json = value.get();
  if (json.is_null()) return false;
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number()) return json.get<double>() != 0;
  if (json.is_string()) return !json.get_ref<const std::string&>().empty();
  return !json.empty();
}

TemplateValue call_template_function(const std::string& name, size_t at, const Values& arguments) {
  for (const Function& function : kFunctions) {
    if (name == function.name) return function.call(Call{name, at, arguments});
  }
  std::vector<std::string> names{"and", "or"};
  for (const Function& function : kFunctions) names.emplace_back(function.name);
  const std::string near = nearest(name, names);
  template_error(at, near.empty() ? fmt::format("there is no function {}", kelp::quoted(name))
                                  : fmt::format("there is no function {}; did you mean {}?", kelp::quoted(name), near));
}

std::string go_print(const TemplateValue& value) {
  const Json& json = value.get();
  if (value.is_duration && json.is_number_integer())
    return go_duration(std::chrono::nanoseconds(json.get<std::int64_t>()));
  if (!value.is_health || !json.is_object()) return go_print(json);
  std::string out;  // a struct: its members in their order
  for (const auto& [name, member] : json.items())
    out += (out.empty() ? "" : " ") + (is_health_time(name) && member.is_number_integer()
                                           ? go_duration(std::chrono::nanoseconds(member.get<std::int64_t>()))
                                           : go_print(member));
  return "{" + out + "}";
}

bool is_health_time(std::string_view name) {
  return name == "StartPeriod" || name == "Interval" || name == "Timeout" || name == "StartInterval";
}

std::string go_print(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "<nil>";
    case Json::value_t::string:
      return value.get<std::string>();
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    case Json::value_t::number_float:
      return fmt::format("{}", value.get<double>());
    case Json::value_t::array: {
      std::string out = "[";
      for (const Json& item : value) out += (out.size() > 1 ? " " : "") + go_print(item);
      return out + "]";
    }
    case Json::value_t::object: {
      std::vector<std::string> keys;
      for (const auto& entry : value.items()) keys.push_back(entry.key());
      std::sort(keys.begin(), keys.end());
      std::string out = "map[";
      for (const auto& key : keys) out += (out.size() > 4 ? " " : "") + key + ":" + go_print(value.at(key));
      return out + "]";
    }
    default:
      return value.dump();
  }
}

}  // namespace kelp::cli
