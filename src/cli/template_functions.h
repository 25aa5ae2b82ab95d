#pragma once

#include <memory>
#include <string>
#include <vector>

#include "cli/template.h"

/// Values and functions of the template language. Included by template*.cc only.
namespace kelp::cli {

/// A value under evaluation: borrowed from the data or owned; `missing` is the absent key of a map.
struct TemplateValue {
  static TemplateValue view(const Json& json) { return {&json, nullptr, false, false}; }
  /// A part of what `holder` may own.
  static TemplateValue view(const Json& json, const TemplateValue& holder) {
    return {&json, holder.owner, false, false};
  }
  static TemplateValue own(Json value);
  static TemplateValue none();
  [[nodiscard]] const Json& get() const { return *json; }

  const Json* json;
  std::shared_ptr<const Json> owner;
  bool missing;
  bool is_map;
  bool is_health = false;    ///< a health check, whose times Go prints as durations
  bool is_duration = false;  ///< a number of nanoseconds
};

/// As Go's %v prints the value.
std::string go_print(const TemplateValue& value);
/// Whether a health check has a duration of that name.
bool is_health_time(std::string_view name);

/// Go's truth: false, 0, "", nil and empty lists and maps are false.
bool template_truth(const TemplateValue& value);
/// throws UsageError with the position for an unknown name or unfit arguments
TemplateValue call_template_function(const std::string& name, size_t at, const std::vector<TemplateValue>& arguments);

}  // namespace kelp::cli
