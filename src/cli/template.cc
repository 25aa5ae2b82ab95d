#include "cli/template.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/text.h"
#include "cli/template_ast.h"
#include "cli/template_functions.h"

namespace kelp::cli {
namespace detail {
namespace {

using Kind = TemplateOperand::Kind;

/// Names whose objects are Go maps, so that an absent key is "<no value>" rather than a mistake.
bool is_map_name(std::string_view name) {
  static constexpr std::string_view kNames[] = {
      "Labels",  "Annotations", "Options",       "Ports", "PortBindings", "Sysctls",      "Registries", "ExposedPorts",
      "Volumes", "Networks",    "Config.Labels", "Data",  "Storage",      "GraphOptions", "Unified",    "Status"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames);
}

enum class Flow { go_on, break_, continue_ };

class Renderer {
 public:
  Renderer(const Json& data, bool lenient, const JsonForms& forms) : lenient_(lenient), forms_(forms) {
    variables_.push_back({"$", TemplateValue::view(data)});
  }

  Flow list(const TemplateList& list, const TemplateValue& dot) {
    const size_t scope = variables_.size();
    Flow flow = Flow::go_on;
    for (const TemplateNode& node : list.nodes) {
      flow = this->node(node, dot);
      if (flow != Flow::go_on) break;
    }
    variables_.resize(scope);
    return flow;
  }

  std::string out;

 private:
  struct Variable {
    std::string name;
    TemplateValue value;
  };

  Flow node(const TemplateNode& node, const TemplateValue& dot) {
    switch (node.kind) {
      case TemplateNode::Kind::text:
        out += node.text;
        return Flow::go_on;
      case TemplateNode::Kind::break_:
        return Flow::break_;
      case TemplateNode::Kind::continue_:
        return Flow::continue_;
      case TemplateNode::Kind::print: {
        const TemplateValue value = pipe(node.pipe, dot);
        if (node.pipe.variables.empty()) out += value.missing ? (lenient_ ? "" : "<no value>") : go_print(value);
        return Flow::go_on;
      }
      case TemplateNode::Kind::if_:
      case TemplateNode::Kind::with:
        return branch(node, dot);
      case TemplateNode::Kind::range:
        return range(node, dot);
    }
    return Flow::go_on;
  }

  Flow branch(const TemplateNode& node, const TemplateValue& dot) {
    const size_t scope = variables_.size();
    const TemplateValue value = pipe(node.pipe, dot);
    Flow flow = Flow::go_on;
    if (template_truth(value)) {
      flow = list(*node.body, node.kind == TemplateNode::Kind::with ? value : dot);
    } else if (node.otherwise) {
      flow = list(*node.otherwise, dot);
    }
    variables_.resize(scope);
    return flow;
  }

  Flow range(const TemplateNode& node, const TemplateValue& dot) {
    const size_t scope = variables_.size();
    const TemplateValue value = commands(node.pipe, dot);
    const Json& items = value.get();
    if (!value.missing && !items.is_null() && !items.is_structured() && !items.is_number_integer()) {
      if (lenient_) return Flow::go_on;
      template_error(node.at, "range needs a list or a map");
    }
    bool any = false;
    const auto turn = [&](const Json& key, const TemplateValue& item) {
      any = true;
      variables_.resize(scope);
      const auto& names = node.pipe.variables;
      if (names.size() == 2) set(names[0], TemplateValue::own(key), node.pipe.declares, node.at);
      if (!names.empty()) set(names.back(), item, node.pipe.declares, node.at);
      return list(*node.body, item) != Flow::break_;
    };
    if (!value.missing && items.is_array()) {
      for (size_t i = 0; i < items.size(); ++i) {
        if (!turn(Json(i), TemplateValue::view(items[i], value))) break;
      }
    } else if (!value.missing && items.is_object()) {
      std::vector<std::string> keys;
      for (const auto& entry : items.items()) keys.push_back(entry.key());
      std::sort(keys.begin(), keys.end());  // as Go walks a map in a template
      for (const auto& key : keys) {
        if (!turn(Json(key), TemplateValue::view(items.at(key), value))) break;
      }
    } else if (!value.missing && items.is_number_integer()) {
      for (std::int64_t i = 0; i < items.get<std::int64_t>(); ++i) {
        if (!turn(Json(i), TemplateValue::own(Json(i)))) break;
      }
    }
    variables_.resize(scope);
    if (!any && node.otherwise) return list(*node.otherwise, dot);
    return Flow::go_on;
  }

  TemplateValue pipe(const TemplatePipe& pipe, const TemplateValue& dot) {
    TemplateValue value = commands(pipe, dot);
    for (const auto& name : pipe.variables) set(name, value, pipe.declares, 0);
    return value;
  }

  TemplateValue commands(const TemplatePipe& pipe, const TemplateValue& dot) {
    std::optional<TemplateValue> value;
    for (const TemplateCommand& command : pipe.commands) value = run(command, dot, value);
    return *value;
  }

  TemplateValue run(const TemplateCommand& command, const TemplateValue& dot,
                    const std::optional<TemplateValue>& piped) {
    const TemplateOperand& first = command.operands.front();
    const bool has_arguments = command.operands.size() > 1 || piped.has_value();
    if (first.kind == Kind::function) {
      std::vector<TemplateValue> arguments;
      if (first.name == "and" || first.name == "or") return logic(command, dot, piped);
      for (size_t i = 1; i < command.operands.size(); ++i) arguments.push_back(operand(command.operands[i], dot));
      if (piped) arguments.push_back(*piped);
      if (first.name == "json" && arguments.size() == 1) {
        const auto form = forms_.find(arguments.front().json);
        if (form != forms_.end()) return call_template_function("json", first.at, {TemplateValue::view(*form->second)});
      }
      return call_template_function(first.name, first.at, arguments);
    }
    if (!has_arguments) return operand(first, dot);
    // {{.Label "key"}}: the one method with an argument that rows offer.
    if (!first.fields.empty() && first.fields.back() == "Label") {
      const TemplateValue key = command.operands.size() == 2 ? operand(command.operands[1], dot) : *piped;
      TemplateValue holder = base_of(first, dot);
      for (size_t i = 0; i + 1 < first.fields.size(); ++i) holder = field(holder, first.fields[i], first, "");
      if (holder.get().is_object() && holder.get().contains("Labels") && key.get().is_string()) {
        return field(field(holder, "Labels", first, ""), key.get().get<std::string>(), first, "Labels");
      }
      if (lenient_) return TemplateValue::own(Json("LABEL"));
    }
    template_error(first.at, "this is a value, not a function: it takes no arguments");
  }

  /// and, or: stop at the first operand that decides.
  TemplateValue logic(const TemplateCommand& command, const TemplateValue& dot,
                      const std::optional<TemplateValue>& piped) {
    const TemplateOperand& name = command.operands.front();
    std::optional<TemplateValue> value;
    for (size_t i = 1; i < command.operands.size(); ++i) {
      value = operand(command.operands[i], dot);
      if (template_truth(*value) == (name.name == "or")) return *value;
    }
    if (piped) value = *piped;
    if (!value) template_error(name.at, fmt::format("{} needs at least one argument", name.name));
    return *value;
  }

  TemplateValue base_of(const TemplateOperand& operand, const TemplateValue& dot) {
    switch (operand.kind) {
      case Kind::dot:
      case Kind::field:
        return dot;
      case Kind::variable:
        return variable(operand);
      case Kind::literal:
        return TemplateValue{operand.literal.get(), operand.literal, false, false};
      case Kind::pipe:
        return pipe(*operand.pipe, dot);
      case Kind::function:
        return call_template_function(operand.name, operand.at, {});
    }
    return dot;
  }

  TemplateValue operand(const TemplateOperand& operand, const TemplateValue& dot) {
    TemplateValue value = base_of(operand, dot);
    std::string_view parent;
    for (const auto& name : operand.fields) {
      value = field(value, name, operand, parent);
      parent = name;
    }
    return value;
  }

  TemplateValue field(const TemplateValue& holder, const std::string& name, const TemplateOperand& operand,
                      std::string_view parent) {
    if (holder.missing || (holder.get().is_null() && lenient_)) return TemplateValue::none();
    const Json& object = holder.get();
    if (object.is_object()) {
      const auto found = object.find(name);
      if (found != object.end()) {
        TemplateValue value = TemplateValue::view(*found, holder);
        value.is_map = is_map_name(name);
        value.is_health = name == "Healthcheck" || name == "StartupHealthCheck";
        value.is_duration = holder.is_health && is_health_time(name);
        return value;
      }
      if (lenient_ || holder.is_map || is_map_name(parent)) return TemplateValue::none();
      std::vector<std::string> names;
      for (const auto& entry : object.items()) names.push_back(entry.key());
      const std::string near = nearest(name, names);
      if (!near.empty()) {
        template_error(operand.at,
                       fmt::format("there is no field {} here; did you mean .{}?", kelp::quoted(name), near));
      }
      template_error(operand.at,
                     fmt::format("there is no field {} here; there are: {}", kelp::quoted(name), join(names, ", ")));
    }
    if (lenient_) return TemplateValue::none();
    template_error(operand.at, fmt::format("field {} of a value that has no fields", kelp::quoted(name)));
  }

  TemplateValue variable(const TemplateOperand& operand) {
    for (auto it = variables_.rbegin(); it != variables_.rend(); ++it) {
      if (it->name == operand.name) return it->value;
    }
    template_error(operand.at, fmt::format("the variable {} is not declared", operand.name));
  }

  void set(const std::string& name, const TemplateValue& value, bool declares, size_t at) {
    if (declares) {
      variables_.push_back({name, value});
      return;
    }
    for (auto it = variables_.rbegin(); it != variables_.rend(); ++it) {
      if (it->name == name) {
        it->value = value;
        return;
      }
    }
    template_error(at, fmt::format("the variable {} is not declared", name));
  }

  std::vector<Variable> variables_;
  bool lenient_;
  const JsonForms& forms_;
};

}  // namespace
}  // namespace detail

Template::Template(std::string_view text) : root_(detail::parse_template(text)) {}
Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

std::string Template::render(const Json& data, const JsonForms& forms) const {
  detail::Renderer renderer(data, false, forms);
  renderer.list(*root_, TemplateValue::view(data));
  return std::move(renderer.out);
}

std::string Template::render_header(const Json& data) const {
  const JsonForms none;
  detail::Renderer renderer(data, true, none);
  renderer.list(*root_, TemplateValue::view(data));
  return std::move(renderer.out);
}

std::string unescape_format(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const char next = text[i] == '\\' && i + 1 < text.size() ? text[i + 1] : '\0';
    if (next == 't' || next == 'n') {
      out += next == 't' ? '\t' : '\n';
      ++i;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace kelp::cli
