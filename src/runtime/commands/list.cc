#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/container.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"format", 'f', "table|json", "output format"},
    OptionSpec{"quiet", 'q', nullptr, "ids only"},
};

std::vector<spec::RuntimeState> all_states(const std::string& root) {
  std::vector<spec::RuntimeState> states;
  for (const std::string& id : Container::list(root)) {
    try {
      if (const auto container = Container::find(root, id)) states.push_back(container->state(container->read()));
    } catch (const Error& error) {
      log::warn("{}: {}", id, error.message());  // one damaged record must not hide the others
    }
  }
  return states;
}

std::string table(const std::vector<spec::RuntimeState>& states) {
  std::vector<std::array<std::string, 6>> rows = {{"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}};
  for (const spec::RuntimeState& state : states)
    rows.push_back({state.id, std::to_string(state.pid), state.status, state.bundle, state.created, state.owner});
  std::array<size_t, 6> widths{};
  for (const auto& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max({widths[i], row[i].size() + 3, size_t{12}});
  std::string out;
  for (const auto& row : rows) {
    for (size_t i = 0; i + 1 < row.size(); ++i) out += fmt::format("{:<{}}", row[i], widths[i]);
    out += row.back() + "\n";
  }
  return out;
}

int list(const Call& call) {
  if (call.options.flag("quiet")) {
    std::string out;
    for (const std::string& id : Container::list(call.global.root)) out += id + "\n";
    print(out);
    return 0;
  }
  const std::string format = call.options.has("format") ? call.options.value("format") : "table";
  if (format != "table" && format != "json")
    throw_usage("option --format: {} is neither table nor json", quoted(format));
  const std::vector<spec::RuntimeState> states = all_states(call.global.root);
  if (format == "table") {
    print(table(states));
    return 0;
  }
  if (states.empty()) {
    print("null\n");  // as runc
    return 0;
  }
  std::string out;
  for (const spec::RuntimeState& state : states) out += (out.empty() ? "[" : ",") + spec::print_state(state);
  print(out + "]\n");
  return 0;
}

}  // namespace

const Command kList = {"list", "", "list containers", kOptions, list, 0, 0};

}  // namespace kelp::runtime
