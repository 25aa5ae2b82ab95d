#include "base/csv.h"

#include "base/error.h"
#include "base/text.h"

namespace kelp {

std::vector<std::string> split_csv(std::string_view text, std::string_view what) {
  std::vector<std::string> fields;
  if (text.empty()) return fields;
  std::string field;
  bool in_quotes = false, was_quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_quotes) {
      if (c != '"') {
        field += c;
      } else if (i + 1 < text.size() && text[i + 1] == '"') {
        field += '"';
        ++i;
      } else {
        in_quotes = false;
      }
    } else if (c == '"' && field.empty() && !was_quoted) {
      in_quotes = was_quoted = true;
    } else if (c == ',') {
      fields.push_back(std::move(field));
      field.clear();
      was_quoted = false;
    } else {
      field += c;
    }
  }
  if (in_quotes) throw_usage("{}: a double quote is not closed in {}", what, quoted(text));
  fields.push_back(std::move(field));
  return fields;
}

}  // namespace kelp
