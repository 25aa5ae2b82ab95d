#include "base/pattern.h"

#include <regex.h>

#include "base/error.h"
#include "base/text.h"

namespace kelp {
namespace {

/// As regcomp(3) takes it. It knows \w and \s, but takes \d for a letter, which would fit the wrong names without a
/// word, and groups without a number, of which there is no other kind here, for a mistake.
std::string as_posix(const std::string& text) {
  std::string out;
  bool in_brackets = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char letter = text[i], next = i + 1 < text.size() ? text[i + 1] : '\0';
    if (letter == '\\' && next == 'd') {
      out += in_brackets ? "0-9" : "[0-9]";
      ++i;
    } else if (letter == '\\' && next == 'D' && !in_brackets) {
      out += "[^0-9]";
      ++i;
    } else if (letter == '\\' && next != '\0' && !in_brackets) {
      out += {letter, next};
      ++i;
    } else if (!in_brackets && text.compare(i, 3, "(?:") == 0) {
      out += letter;
      i += 2;
    } else {
      if (letter == '[') in_brackets = true;
      if (letter == ']' && i > 0 && text[i - 1] != '[') in_brackets = false;  // "[]…" holds it
      out += letter;
    }
  }
  return out;
}

}  // namespace

struct Pattern::Compiled {
  regex_t code{};
  explicit Compiled(const std::string& text) {
    const bool any_case = starts_with(text, "(?i)");
    const int flags = REG_EXTENDED | REG_NOSUB | (any_case ? REG_ICASE : 0);
    if (::regcomp(&code, as_posix(any_case ? text.substr(4) : text).c_str(), flags) != 0)
      throw_error("{} is no regular expression", quoted(text));
  }
  ~Compiled() { ::regfree(&code); }
  Compiled(const Compiled&) = delete;
  Compiled& operator=(const Compiled&) = delete;
};

Pattern::Pattern(const std::string& text) : compiled_(std::make_shared<const Compiled>(text)) {}

bool Pattern::found_in(const std::string& text) const noexcept {
  return ::regexec(&compiled_->code, text.c_str(), 0, nullptr, 0) == 0;
}

}  // namespace kelp
