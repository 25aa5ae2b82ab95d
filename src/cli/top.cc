#include "engine/top.h"

#include <algorithm>
#include <memory>

#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "engine/exec.h"
#include "store/containers.h"

namespace kelp::cli {

Action define_top(OptionSet& options) {
  auto latest = std::make_shared<bool>(false);
  options.arguments("CONTAINER [COLUMN...|PS-ARGUMENT...]", 0, -1, Complete::running);
  options.stop_at_first_word();
  add_latest(options, *latest);
  static const std::string description = [] {
    Strings names;
    for (const auto& column : engine::top_columns()) names.emplace_back(column.name);
    return "Columns: " + join(names, " ") + "\nOther words are arguments for the ps program inside the container.";
  }();
  options.describe(description, "kelp top web\nkelp top web pid hpid user args\nkelp top web -eo pid,args");
  return [latest](Invocation& invocation) {
    const auto record = take_container(invocation, *latest);
    const Strings& words = invocation.arguments;
    const auto known = [](const std::string& word) {
      const Strings parts = split(word, ',');
      return std::all_of(parts.begin(), parts.end(), engine::is_top_column);
    };
    // What are no columns of ours are arguments for the ps inside the container.
    if (!std::all_of(words.begin(), words.end(), known)) {
      engine::ExecRequest ps;
      ps.command = {"ps"};
      for (const auto& word : words)
        for (auto& part : split(word, ' '))
          if (!part.empty()) ps.command.push_back(std::move(part));
      ps.id = store::new_container_id();
      return engine::exec_in_container(invocation.context, record, ps);
    }
    Strings wanted;
    for (const auto& word : words) {
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
