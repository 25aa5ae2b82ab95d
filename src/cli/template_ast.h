#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "cli/template.h"

/// The parsed form of a template: made by template_parse.cc, walked by template.cc. Included by these two only.
namespace kelp::cli::detail {

struct TemplatePipe;

struct TemplateOperand {
  enum class Kind { dot, field, variable, function, literal, pipe } kind = Kind::dot;
  size_t at = 0;                        ///< byte offset in the text, for messages
  std::string name;                     ///< variable ("$x", "$") or function
  std::vector<std::string> fields;      ///< chain behind dot, variable or pipe
  std::shared_ptr<const Json> literal;  ///< kind literal; JSON null for nil
  std::unique_ptr<TemplatePipe> pipe;   ///< kind pipe: ( … )
};

struct TemplateCommand {
  std::vector<TemplateOperand> operands;  ///< never empty
};

struct TemplatePipe {
  std::vector<std::string> variables;  ///< declared or set; at most two, two only in range
  bool declares = false;               ///< := rather than =
  std::vector<TemplateCommand> commands;
};

struct TemplateNode {
  enum class Kind { text, print, if_, range, with, break_, continue_ } kind = Kind::text;
  size_t at = 0;
  std::string text;
  TemplatePipe pipe;
  std::unique_ptr<TemplateList> body, otherwise;
};

struct TemplateList {
  std::vector<TemplateNode> nodes;
};

/// throws UsageError with the position
std::unique_ptr<TemplateList> parse_template(std::string_view text);
[[noreturn]] void template_error(size_t at, std::string_view message);

}  // namespace kelp::cli::detail
