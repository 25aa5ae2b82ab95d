#include <unistd.h>

#include <algorithm>
#include <memory>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "engine/inspect.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct PsCommand {
  bool all = false, latest = false, no_trunc = false, quiet = false, size = false, no_heading = false,
       namespaces = false, external = false;
  std::optional<unsigned> watch;
  std::optional<int> last;
  Strings filters;
  std::string format, sort = "created";
};

/// A container with what the listing needs of it, asked for once.
struct Row {
  store::ContainerRecord record;
  store::ContainerStatus status;
  bool external = false;  ///< it lies in the store, and nothing here can run it
  Strings command;
  engine::ContainerSize size;
};

std::chrono::seconds since(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - time);
}

std::string status_text(const store::ContainerStatus& status) {
  using store::Status;
  switch (status.status) {
    case Status::created:
      return "Created";
    case Status::initialized:
      return "Initialized";
    case Status::running:
    case Status::paused:
    case Status::stopping: {
      std::string text = status.status == Status::running  ? "Up"
                         : status.status == Status::paused ? "Paused"
                                                           : "Stopping";
      if (status.run && status.status != Status::paused) text += " " + human_duration(since(status.run->started));
      if (!status.health.empty()) text += " (" + status.health + ")";
      return text;
    }
    case Status::exited: {
      if (!status.last_exit) return "Exited (?)";
      return fmt::format("Exited ({}) {} ago", status.last_exit->code,
                         human_duration(since(status.last_exit->finished)));
    }
  }
  return "";
}

/// Consecutive ports on the same address are one range: "0.0.0.0:8000-8002->80-82/tcp".
std::string ports_text(const store::ContainerRecord& record) {
  std::string out;
  const auto& ports = record.ports;
  for (size_t i = 0; i < ports.size();) {
    size_t end = i + 1;
    while (end < ports.size() && ports[end].host_ip == ports[i].host_ip && ports[end].protocol == ports[i].protocol &&
           ports[end].host_port == ports[i].host_port + (end - i) &&
           ports[end].container_port == ports[i].container_port + (end - i)) {
      ++end;
    }
    const auto range = [&](std::uint16_t first) {
      return end - i == 1 ? fmt::format("{}", first) : fmt::format("{}-{}", first, first + (end - i) - 1);
    };
    out +=
        fmt::format("{}{}:{}->{}/{}", out.empty() ? "" : ", ", ports[i].host_ip.empty() ? "0.0.0.0" : ports[i].host_ip,
                    range(ports[i].host_port), range(ports[i].container_port), ports[i].protocol);
    i = end;
  }
  return out;
}

std::string command_text(const Row& row, bool whole) {
  constexpr size_t kWidth = 17;
  const std::string line = join(row.command, " ");
  return whole || line.size() <= kWidth ? line : shorten(line, kWidth + 3);
}

std::string size_text(const engine::ContainerSize& size) {
  return fmt::format("{} (virtual {})", human_size_short(size.writable), human_size_short(size.root));
}

std::int64_t unix_seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count();
}

Json mount_targets(const store::ContainerRecord& record) {
  Json targets = Json::array();
  for (const auto& mount : record.config.mounts) targets.push_back(mount.target);
  return targets;
}

constexpr const char* kNamespaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "user", "uts"};

/// The number of a namespace as /proc shows it, "" when the container does not run.
std::string namespace_of(const Row& row, const char* name) {
  if (!row.status.run || row.status.run->pid == 0) return "";
  char target[64];
  const ssize_t size =
      ::readlink(fmt::format("/proc/{}/ns/{}", row.status.run->pid, name).c_str(), target, sizeof target);
  const std::string_view text(target, static_cast<size_t>(std::max<ssize_t>(size, 0)));
  const size_t open = text.find('[');
  return open == std::string_view::npos ? "" : std::string(text.substr(open + 1, text.size() - open - 2));
}

Json namespaces_json(const Row& row) {
  static constexpr const char* kTitles[] = {"Cgroup", "IPC", "MNT", "NET", "PIDNS", "User", "UTS"};
  Json json = Json::object();
  for (size_t i = 0; i < std::size(kNamespaces); ++i) json[kTitles[i]] = namespace_of(row, kNamespaces[i]);
  return json;
}

std::string state_text(const Row& row) { return row.external ? "storage" : store::status_name(row.status.status); }

/// The fields that templates and the table name. source: podman-ps(1)
Json template_row(const Row& row, const PsCommand& values) {
  const auto& record = row.record;
  const bool lives = row.status.run && row.status.status != store::Status::exited;
  Json json;
  json["ID"] = values.no_trunc ? record.id : record.id.substr(0, 12);
  json["Image"] = record.image_name.empty() ? record.image_id.substr(0, 12) : record.image_name;
  json["ImageID"] = record.image_id;
  json["Command"] = command_text(row, values.no_trunc);
  json["Created"] = age(record.created);
  json["CreatedAt"] = go_time(record.created);
  json["CreatedHuman"] = age(record.created);
  json["RunningFor"] = age(record.created);
  json["State"] = state_text(row);
  json["Status"] = row.external ? "Storage" : status_text(row.status);
  json["Ports"] = ports_text(record);
  json["Names"] = record.name;
  json["Labels"] = Json::object();
  for (const auto& [key, value] : engine::shown_labels(record)) json["Labels"][key] = value;
  json["Mounts"] = join(mount_targets(record).get<Strings>(), ",");
  json["Networks"] = engine::network_mode_name(record);
  json["Pid"] = lives ? row.status.run->pid : 0;
  json["Pod"] = "";
  json["PodName"] = "";
  json["Size"] = values.size ? size_text(row.size) : "";
  json["ExitCode"] = row.status.last_exit ? row.status.last_exit->code : 0;
  json["Exited"] = row.status.status == store::Status::exited;
  json["ExitedAt"] = row.status.last_exit ? go_time(row.status.last_exit->finished) : "";
  json["StartedAt"] = lives ? unix_seconds(row.status.run->started)
                            : (row.status.last_exit ? unix_seconds(row.status.last_exit->started) : 0);
  json["AutoRemove"] = record.config.remove;
  json["IsInfra"] = false;
  json["Restarts"] = row.status.run ? row.status.run->restarts : 0;
  if (values.namespaces) {
    const Json all = namespaces_json(row);
    json["Namespaces"] = all;
    json.update(all);
  }
  return json;
}

/// One object of --format json, with podman's names and types.
Json json_row(const Row& row, const PsCommand& values) {
  const auto& record = row.record;
  const bool lives = row.status.run && row.status.status != store::Status::exited;
  Json json;
  json["AutoRemove"] = record.config.remove;
  json["Command"] = row.command;
  json["CreatedAt"] = age(record.created);
  json["Exited"] = row.status.status == store::Status::exited;
  json["ExitedAt"] = row.status.last_exit ? unix_seconds(row.status.last_exit->finished) : -62135596800;
  json["ExitCode"] = row.status.last_exit ? row.status.last_exit->code : 0;
  json["Id"] = record.id;
  json["Image"] = record.image_name;
  json["ImageID"] = record.image_id;
  json["IsInfra"] = false;
  json["Labels"] = Json();
  for (const auto& [key, value] : engine::shown_labels(record)) json["Labels"][key] = value;
  json["Mounts"] = mount_targets(record);
  json["Names"] = {record.name};
  json["Namespaces"] = values.namespaces ? namespaces_json(row) : Json::object();
  json["Networks"] = Json::array();
  json["Pid"] = lives ? row.status.run->pid : 0;
  json["Pod"] = "";
  json["PodName"] = "";
  json["Ports"] = Json();
  for (const auto& port : record.ports) {
    json["Ports"].push_back({{"host_ip", port.host_ip},
                             {"container_port", port.container_port},
                             {"host_port", port.host_port},
                             {"range", 1},
                             {"protocol", port.protocol}});
  }
  json["Size"] = values.size ? Json({{"rootFsSize", row.size.root}, {"rwSize", row.size.writable}}) : Json();
  json["StartedAt"] = lives ? unix_seconds(row.status.run->started)
                            : (row.status.last_exit ? unix_seconds(row.status.last_exit->started) : -62135596800);
  json["State"] = state_text(row);
  json["Status"] = row.external ? "Storage" : status_text(row.status);
  json["Created"] = unix_seconds(record.created);
  return json;
}

void sort_rows(std::vector<Row>& rows, const std::string& by) {
  const auto key = [&by](const Row& row) -> std::string {
    if (by == "id") return row.record.id;
    if (by == "image") return row.record.image_name;
    if (by == "names") return row.record.name;
    if (by == "command") return join(row.command, " ");
    if (by == "status") return store::status_name(row.status.status);
    return "";
  };
  std::stable_sort(rows.begin(), rows.end(), [&](const Row& left, const Row& right) {
    if (by == "created") return left.record.created < right.record.created;
    if (by == "runningfor") {
      const auto started = [](const Row& row) {
        return row.status.run ? row.status.run->started : std::chrono::system_clock::time_point();
      };
      return started(left) < started(right);
    }
    if (by == "size") return left.size.writable < right.size.writable;
    return key(left) < key(right);
  });
}

std::vector<Row> collect(Invocation& invocation, const PsCommand& values) {
  const ContainerFilter filter(invocation, values.filters);
  const bool every = values.all || values.latest || values.last || filter.mentions_status();
  auto records = store::list(invocation.context.layout);
  const std::optional<int> last = values.latest ? 1 : values.last;
  if (last && *last >= 0 && records.size() > static_cast<size_t>(*last)) {
    records.erase(records.begin(), records.end() - *last);
  }
  std::vector<Row> rows;
  for (auto& record : records) {
    Row row{.record = std::move(record)};
    row.status = store::status(invocation.context.layout, row.record);
    const bool lives = row.status.status == store::Status::running || row.status.status == store::Status::stopping;
    if ((!every && !lives) || !filter.matches(row.record, row.status)) continue;
    if (!values.quiet || values.sort == "command") row.command = engine::shown_command(row.record);
    if (values.size || values.sort == "size") row.size = engine::container_size(invocation.context, row.record);
    rows.push_back(std::move(row));
  }
  if (values.external)
    for (auto& record : store::list_external(invocation.context.layout))
      rows.push_back({.record = std::move(record), .external = true});
  sort_rows(rows, values.sort);
  return rows;
}

int list_once(Invocation& invocation, const PsCommand& values);

/// What podman refuses, too.
void check_together(const PsCommand& values) {
  const auto exclude = [](bool one, bool other, const char* what) {
    if (one && other) throw_usage("ps: {} exclude each other", what);
  };
  exclude(values.quiet, values.size, "--quiet and --size");
  exclude(values.quiet, values.namespaces, "--quiet and --namespace");
  exclude(values.size, values.namespaces, "--size and --namespace");
  exclude(values.latest, values.last.has_value(), "--latest and --last");
  exclude(values.latest, values.watch.has_value(), "--latest and --watch");
}

int ps(Invocation& invocation, const PsCommand& values) {
  check_together(values);
  if (!values.watch) return list_once(invocation, values);
  if (*values.watch == 0) throw_usage("--watch: the time must be a second at least");
  for (;;) {
    // The screen is cleared where there is one; a file gets one list after the other.
    if (stdout_is_terminal()) print("\x1b[H\x1b[2J");
    list_once(invocation, values);
    ::sleep(*values.watch);
  }
}

int list_once(Invocation& invocation, const PsCommand& values) {
  if (values.size && values.namespaces) throw_usage("--size and --ns exclude each other");
  if (values.latest && values.all) throw_usage("--all and --latest exclude each other");
  if (values.quiet && values.size) throw_usage("--quiet and --size exclude each other");
  ListFormat how;
  how.format = values.format;
  how.no_heading = values.no_heading;
  how.quiet = values.quiet;
  how.quiet_field = "ID";
  how.columns = {{"ID", "CONTAINER ID"}, {"Image", "IMAGE"}, {"Command", "COMMAND"}, {"Created", "CREATED"},
                 {"Status", "STATUS"},   {"Ports", "PORTS"}, {"Names", "NAMES"}};
  how.headings = {{"RunningFor", "CREATED"}, {"ImageID", "IMAGE ID"}, {"ExitCode", "EXIT CODE"}};
  if (values.size) how.columns.push_back({"Size", "SIZE"});
  if (values.namespaces)
    how.columns = {{"ID", "CONTAINER ID"}, {"Names", "NAMES"}, {"Pid", "PID"}, {"Cgroup", "CGROUPNS"},
                   {"IPC", "IPC"},         {"MNT", "MNT"},     {"NET", "NET"}, {"PIDNS", "PIDNS"},
                   {"User", "USERNS"},     {"UTS", "UTS"}};
  const auto rows = collect(invocation, values);
  Json lines = Json::array(), json = Json::array();
  const bool as_json = values.format == "json";
  for (const Row& row : rows) {
    if (as_json) {
      json.push_back(json_row(row, values));
    } else {
      lines.push_back(template_row(row, values));
    }
  }
  print(render_list(how, lines, &json));
  return 0;
}

}  // namespace

Action define_ps(OptionSet& options) {
  auto values = std::make_shared<PsCommand>();
  options.flag("all,a", values->all, "also containers that do not run");
  options.flag("external", values->external, "also what lies in the store and cannot be run here");
  options.list("filter,f", values->filters, "KEY=VALUE",
               "containers that fit: status=exited, name=web, label=key, ...");
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each container");
  options.number("last,n", values->last, "N", "the N containers that were created last, in any state");
  add_latest(options, values->latest);
  options.flag("no-trunc", values->no_trunc, "show everything in full length");
  options.flag("ns", values->namespaces, "show the namespaces");
  options.number("watch,w", values->watch, "SECONDS", "list again and again");
  options.flag("noheading", values->no_heading, "leave out the headings");
  options.flag("quiet,q", values->quiet, "show IDs only");
  options.flag("size,s", values->size, "show the sizes on disk");
  options.text("sort", values->sort, "COLUMN", "order of the rows")
      .one_of({"command", "created", "id", "image", "names", "runningfor", "size", "status"})
      .shows("created");
  return [values](Invocation& invocation) { return ps(invocation, *values); };
}

}  // namespace kelp::cli
