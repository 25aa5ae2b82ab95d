#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/program_path.h"
#include "base/text.h"
#include "runtime/commands/commands.h"
#include "runtime/commands/print.h"
#include "runtime/container.h"
#include "runtime/processes.h"
#include "sys/spawn.h"

namespace kelp::runtime {
namespace {

constexpr std::array kOptions = {
    OptionSpec{"format", 'f', "table|json", "output format"},
};

/// Words of one line of ps; the last column may hold blanks.
std::vector<std::string> fields(std::string_view line) {
  std::vector<std::string> out;
  for (const std::string& word : split(line, ' '))
    if (!word.empty()) out.push_back(word);
  return out;
}

/// The lines of ps(1) that belong to the container, with its header.
std::string filter(const std::string& listing, const std::vector<pid_t>& pids) {
  const std::vector<std::string> lines = split(listing, '\n');
  if (lines.empty()) throw_error("ps printed nothing");
  const std::vector<std::string> header = fields(lines[0]);
  const auto column = std::find(header.begin(), header.end(), "PID") - header.begin();
  if (column == static_cast<std::ptrdiff_t>(header.size())) throw_error("ps prints no PID column with these options");
  std::string out = lines[0] + "\n";
  for (size_t i = 1; i < lines.size(); ++i) {
    const std::vector<std::string> words = fields(lines[i]);
    if (static_cast<std::ptrdiff_t>(words.size()) <= column) continue;
    const auto pid = to_int(words[static_cast<size_t>(column)], 1);
    if (pid && std::binary_search(pids.begin(), pids.end(), static_cast<pid_t>(*pid))) out += lines[i] + "\n";
  }
  return out;
}

int ps(const Call& call) {
  const std::string format = call.options.has("format") ? call.options.value("format") : "table";
  if (format != "table" && format != "json")
    throw_usage("option --format: {} is neither table nor json", quoted(format));
  const Container container = Container::open(call.global.root, call.words[0]);
  const std::vector<pid_t> pids = processes_of(container, container.require());
  if (format == "json") {
    std::string out;
    for (const pid_t pid : pids) out += (out.empty() ? "[" : ",") + std::to_string(pid);
    print(out.empty() ? "null\n" : out + "]\n");
    return 0;
  }
  sys::SpawnRequest request;
  request.path = find_in_path("ps");
  if (request.path.empty()) throw Error("ps is not installed").with_hint("--format json lists the process ids");
  request.argv = {"ps"};
  request.argv.insert(request.argv.end(), call.words.begin() + 1, call.words.end());
  if (request.argv.size() == 1) request.argv.emplace_back("-ef");
  const sys::Captured listing = sys::run_captured(request);
  if (listing.status != 0) throw_error("ps failed: {}", trim(listing.err));
  print(filter(listing.out, pids));
  return 0;
}

}  // namespace

const Command kPs = {"ps", "ID [PS-OPTION…]", "list the processes of a container", kOptions, ps, 1, 1000, true};

}  // namespace kelp::runtime
