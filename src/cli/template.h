#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

#include <nlohmann/json_fwd.hpp>

namespace kelp::cli {

using Json = nlohmann::ordered_json;

namespace detail {
struct TemplateList;
}

/// What the function json prints in place of a value of the data, where its keys are others than the fields' names.
using JsonForms = std::unordered_map<const Json*, const Json*>;

/// A template in the language of Go's text/template, as `--format` of podman and docker takes it.
///
/// There are: {{.Field.Sub}}, $variables, pipelines, if / else if / else, range / else, with / else, break, continue,
/// comments, trim marks ({{- -}}), string, raw string, character, integer and decimal literals; the functions
/// and or not len index slice eq ne lt le gt ge print printf println html js urlquery, and podman's
/// json join lower pad split title truncate upper. There are no {{define}}, {{template}}, {{block}}.
///
/// Objects are Go structs: an unknown field is an error that names it. Objects below one of the well-known map
/// names (Labels, Annotations, …) are Go maps: there an unknown key prints "<no value>".
class Template {
 public:
  /// throws UsageError "template, character 7: …"
  explicit Template(std::string_view text);
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  /// throws UsageError naming the position and the field
  [[nodiscard]] std::string render(const Json& data, const JsonForms& forms = {}) const;
  /// For header rows: data is {"Field": "HEADER"}; what the header does not have prints as nothing.
  [[nodiscard]] std::string render_header(const Json& data) const;

 private:
  std::unique_ptr<detail::TemplateList> root_;
};

/// `\t` and `\n` as two characters become the one they mean (outside of {{actions}}), as podman and docker do.
std::string unescape_format(std::string_view text);

/// As Go's %v prints a value: strings bare, [a b], map[k:v], <nil>.
std::string go_print(const Json& value);

}  // namespace kelp::cli
