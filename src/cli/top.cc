#include "engine/top.h"

#include <memory>

#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"

namespace kelp::cli {

Action define_top(OptionSet& options) {
  auto latest = std::make_shared<bool>(false);
  options.arguments("CONTAINER [COLUMN...]", 0, -1, Complete::running);
  add_latest(options, *latest);
  static const std::string description = [] {
    Strings names;
    for (const auto& column : engine::top_columns()) names.emplace_back(column.name);
    return "Columns: " + join(names, " ");
  }();
  options.describe(description, "kelp top web\nkelp top web pid hpid user args");
  return [latest](Invocation& invocation) {
    const auto record = take_container(invocation, *latest);
    Strings wanted;
    for (const auto& word : invocation.arguments) {
      for (auto& part : split(word, ',')) wanted.push_back(std::move(part));
    }
    std::vector<Strings> rows = engine::container_processes(invocation.context, record, wanted);
    for (auto& row : rows) {
      for (auto& cell : row) cell = printable(cell);
    }
    print(render_table(rows));
    return 0;
  };
}

}  // namespace kelp::cli
