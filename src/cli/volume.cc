#include "store/volumes.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "engine/events.h"
#include "engine/inspect.h"
#include "engine/remove.h"
#include "engine/volume_data.h"
#include "store/containers.h"
#include "store/layout.h"

namespace kelp::cli {
namespace {

struct ListCommand {
  bool no_heading = false, quiet = false;
  Strings filters;
  std::string format;
};
struct RmCommand {
  bool all = false, force = false;
  unsigned time = 10;
};
struct InspectCommand {
  bool all = false;
  std::string format;
};
struct PruneCommand {
  bool force = false, all = false, dry_run = false;
  Strings filters;
};

/// One condition of --filter. source: podman-volume-ls(1)
bool fits(const store::Layout& layout, const store::VolumeRecord& volume, const std::string& key,
          const std::string& value, bool used) {
  if (key == "name") return filter_pattern(key, value).found_in(volume.name);
  if (key == "driver") return volume.driver == value;
  if (key == "scope") return value == "local";
  if (key == "dangling") {
    const auto wanted = to_bool(value);
    if (!wanted) throw_usage("--filter: dangling must be true or false, not {}", kelp::quoted(value));
    return used != *wanted;
  }
  if (key == "since" || key == "after") {
    const auto other = store::find_volume(layout, value);
    if (!other) throw_usage("--filter {}: there is no volume {}", key, kelp::quoted(value));
    return volume.created > other->created;
  }
  if (key == "until") return volume.created < parse_moment(value, "--filter until");
  if (key == "label") return label_fits(volume.labels, value);
  if (key == "label!") return !label_fits(volume.labels, value);
  const size_t equals = value.find('=');
  const auto found = volume.options.find(value.substr(0, equals));
  return found != volume.options.end() && (equals == std::string::npos || found->second == value.substr(equals + 1));
}

}  // namespace

void check_volume_filters(const store::Layout& layout, const Strings& filters) {
  static constexpr const char* kKeys[] = {"name",  "driver", "scope", "dangling", "since",
                                          "after", "until",  "opt",   "label",    "label!"};
  for (const auto& filter : filters) {
    const size_t equals = filter.find('=');
    if (equals == std::string::npos || equals == 0) throw_usage("--filter {}: must be key=value", kelp::quoted(filter));
    const std::string key = filter.substr(0, equals);
    if (std::none_of(std::begin(kKeys), std::end(kKeys), [&](const char* known) { return key == known; })) {
      throw_usage("--filter: unknown key {}; there are: {}", kelp::quoted(key),
                  join(Strings(std::begin(kKeys), std::end(kKeys)), ", "));
    }
    fits(layout, {}, key, filter.substr(equals + 1), false);  // for what it says of the value
  }
}

bool volume_fits(const store::Layout& layout, const store::VolumeRecord& volume, const Strings& filters, bool used) {
  return std::all_of(filters.begin(), filters.end(), [&](const std::string& filter) {
    const size_t equals = filter.find('=');
    const std::string key = filter.substr(0, equals);
    const auto agrees = [&](const std::string& other) {
      return starts_with(other, key + "=") && fits(layout, volume, key, other.substr(equals + 1), used);
    };
    // Conditions on one key are alternatives, except for labels, where all must hold.
    const bool all = key == "label" || key == "label!";
    return all ? agrees(filter) : std::any_of(filters.begin(), filters.end(), agrees);
  });
}

namespace {

int list(Invocation& invocation, const ListCommand& values) {
  const auto& layout = invocation.context.layout;
  const auto containers = values.filters.empty() ? std::vector<store::ContainerRecord>{} : store::list(layout);
  Json rows = Json::array(), json = Json::array();
  check_volume_filters(layout, values.filters);
  for (const auto& volume : store::list_volumes(layout)) {
    const bool used = !store::volume_users(containers, volume.name).empty();
    if (!volume_fits(layout, volume, values.filters, used)) continue;
    Json object = engine::inspect_volume(invocation.context, volume);
    json.push_back(object);
    rows.push_back(std::move(object));
  }
  ListFormat how;
  how.format = values.format;
  how.no_heading = values.no_heading;
  how.quiet = values.quiet;
  how.quiet_field = "Name";
  how.columns = {{"Driver", "DRIVER"}, {"Name", "VOLUME NAME"}};
  if (rows.empty() && values.format.empty()) return 0;
  print(render_list(how, rows, &json));
  return 0;
}

int inspect(Invocation& invocation, const InspectCommand& values) {
  const auto& layout = invocation.context.layout;
  if (values.all == !invocation.arguments.empty()) throw_usage("volume inspect needs either names or --all");
  Json objects = Json::array();
  Strings missing;
  if (values.all) {
    for (const auto& volume : store::list_volumes(layout))
      objects.push_back(engine::inspect_volume(invocation.context, volume));
  }
  for (const auto& word : invocation.arguments) {
    if (const auto volume = store::find_volume(layout, word, true)) {
      objects.push_back(engine::inspect_volume(invocation.context, *volume));
    } else {
      missing.push_back(word);
    }
  }
  if (!objects.empty() || values.format.empty()) print(render_objects(values.format, objects));
  for (size_t i = 0; i + 1 < missing.size(); ++i) log::error("no such volume {}", kelp::quoted(missing[i]));
  if (!missing.empty()) throw_usage("no such volume {}", kelp::quoted(missing.back()));
  return 0;
}

int rm(Invocation& invocation, const RmCommand& values) {
  const auto& layout = invocation.context.layout;
  if (values.all == !invocation.arguments.empty()) throw_usage("volume rm needs either names or --all");
  Strings words = values.all ? store::volume_names(layout) : invocation.arguments;
  std::vector<Error> failures;
  for (const auto& word : words) {
    try {
      const auto volume = store::find_volume(layout, word, true);
      if (!volume && values.force) continue;
      // As podman-volume-rm(1) has it: 1 where it is not there, 2 where a container uses it.
      if (!volume) throw Error(fmt::format("no such volume {}", kelp::quoted(word)), 1);
      const Strings users = values.force ? Strings{} : store::volume_users(layout, volume->name);
      if (!users.empty()) {
        throw Error(fmt::format("volume {} is being used by container {}", volume->name, users.front().substr(0, 12)),
                    2)
            .with_hint("remove the container first, or use --force");
      }
      engine::remove_volume(invocation.context, *volume, values.force, values.time);
      print_line(volume->name);
    } catch (const Error& error) {
      failures.push_back(error);
    }
  }
  for (size_t i = 0; i + 1 < failures.size(); ++i) log::error("{}", failures[i].what());
  if (!failures.empty()) throw failures.back();
  return 0;
}

int prune(Invocation& invocation, const PruneCommand& values) {
  const auto& layout = invocation.context.layout;
  if (!values.force && !values.dry_run &&
      !confirm(fmt::format("WARNING! This will remove all {}volumes not used by at least one container.\n"
                           "Are you sure you want to continue? [y/N] ",
                           values.all ? "" : "anonymous "))) {
    return 0;
  }
  const auto containers = store::list(layout);
  check_volume_filters(layout, values.filters);
  for (const auto& volume : store::list_volumes(layout)) {
    if (!store::volume_users(containers, volume.name).empty()) continue;
    if ((!values.all && !volume.anonymous) || !volume_fits(invocation.context.layout, volume, values.filters, false))
      continue;
    if (!values.dry_run) engine::remove_volume(invocation.context, volume, false);
    print_line(volume.name);
  }
  return 0;
}

int export_files(Invocation& invocation, const std::string& output) {
  const auto volume = store::get_volume(invocation.context.layout, invocation.arguments[0]);
  if (output.empty() && stdout_is_terminal())
    throw UsageError("an archive is not written to a terminal").with_hint("kelp volume export --output FILE VOLUME");
  engine::export_volume(invocation.context, volume, output);
  return 0;
}

int import_files(Invocation& invocation) {
  const auto volume = store::get_volume(invocation.context.layout, invocation.arguments[0]);
  const std::string source = invocation.arguments.size() > 1 ? invocation.arguments[1] : "-";
  if (source == "-") {
    if (stdin_is_terminal())
      throw UsageError("an archive is not read from a terminal").with_hint("kelp volume import VOLUME FILE");
    engine::import_volume(invocation.context, volume, STDIN_FILENO);
    return 0;
  }
  const Fd file(::open(source.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file) throw_errno("open {}", kelp::quoted(source));
  engine::import_volume(invocation.context, volume, file.get());
  return 0;
}

}  // namespace

Action define_volume_create(OptionSet& options) {
  auto request = std::make_shared<store::VolumeRequest>();
  options.arguments("[NAME]", 0, 1);
  options.text("driver,d", request->driver, "NAME", "driver of the volume").one_of({"local"}).shows("local");
  options.map("label,l", request->labels, "KEY=VALUE", "label of the volume");
  options.map("opt,o", request->options, "KEY=VALUE", "option of the driver: type, device, o");
  options.number("uid", request->uid, "ID", "owner of the volume's directory, as a container sees it");
  options.number("gid", request->gid, "ID", "group of the volume's directory");
  options.flag("ignore", request->ignore_if_exists, "do not mind a volume that is there already");
  return [request](Invocation& invocation) {
    if (!invocation.arguments.empty()) request->name = invocation.arguments[0];
    request->anonymous = invocation.arguments.empty();  // prune takes it, as docker does
    store::prepare(invocation.context.layout);
    const auto volume = store::create_volume(invocation.context.layout, *request);
    engine::emit_event(invocation.context, "volume", "create", volume.name, volume.name);
    print_line(volume.name);
    return 0;
  };
}

Action define_volume_export(OptionSet& options) {
  auto output = std::make_shared<std::string>();
  options.arguments("VOLUME", 1, 1, Complete::volume);
  options.text("output,o", *output, "FILE", "where to write").complete(Complete::file).shows("standard output");
  return [output](Invocation& invocation) { return export_files(invocation, *output); };
}

Action define_volume_import(OptionSet& options) {
  options.arguments("VOLUME [FILE|-]", 1, 2, Complete::volume);
  return [](Invocation& invocation) { return import_files(invocation); };
}

Action define_volume_ls(OptionSet& options) {
  auto values = std::make_shared<ListCommand>();
  options.list("filter,f", values->filters, "KEY=VALUE", "volumes that fit: dangling=true, name=data, label=key, ...");
  options.text("format", values->format, "FORMAT", "json, table, or a Go template for each volume");
  options.flag("noheading,n", values->no_heading, "leave out the headings");
  options.flag("quiet,q", values->quiet, "show names only");
  return [values](Invocation& invocation) { return list(invocation, *values); };
}

Action define_volume_inspect(OptionSet& options) {
  auto values = std::make_shared<InspectCommand>();
  options.arguments("[VOLUME...]", 0, -1, Complete::volume);
  options.flag("all,a", values->all, "all volumes");
  options.text("format,f", values->format, "FORMAT", "json, or a Go template for each volume");
  return [values](Invocation& invocation) { return inspect(invocation, *values); };
}

Action define_volume_mount(OptionSet& options) {
  options.arguments("VOLUME", 1, 1, Complete::volume);
  options.describe(
      "The files of a volume are always there; within `kelp unshare` they have the owners that containers see.");
  return [](Invocation& invocation) {
    const auto volume = store::get_volume(invocation.context.layout, invocation.arguments[0]);
    const auto type = volume.options.find("type");
    if (type != volume.options.end() && type->second == "tmpfs")
      throw_error("volume {} is a tmpfs: it has no files of its own", volume.name);
    print_line(volume.mountpoint);
    return 0;
  };
}

Action define_volume_unmount(OptionSet& options) {
  options.arguments("VOLUME", 1, 1, Complete::volume);
  options.describe(
      "Nothing is mounted for `volume mount`: this checks and prints the name, for scripts that call both.");
  return [](Invocation& invocation) {
    print_line(store::get_volume(invocation.context.layout, invocation.arguments[0]).name);
    return 0;
  };
}

Action define_volume_reload(OptionSet& options) {
  options.describe(
      "Directories below the volumes' directory that have _data and no record, copied from elsewhere, become volumes.");
  return [](Invocation& invocation) {
    const Strings added = store::adopt_volumes(invocation.context.layout);
    if (!added.empty()) print_line("Added:\n" + join(added, "\n"));
    return 0;
  };
}

Action define_volume_exists(OptionSet& options) {
  options.arguments("VOLUME", 1, 1, Complete::volume);
  return [](Invocation& invocation) {
    return store::find_volume(invocation.context.layout, invocation.arguments[0]).has_value() ? 0 : 1;
  };
}

Action define_volume_rm(OptionSet& options) {
  auto values = std::make_shared<RmCommand>();
  options.arguments("VOLUME...", 0, -1, Complete::volume);
  options.flag("all,a", values->all, "all volumes");
  options.flag("force,f", values->force, "also the containers that use the volume; do not mind missing volumes");
  options.number("time,t", values->time, "SECONDS", "time between the stop signal and SIGKILL for these containers")
      .shows("10");
  return [values](Invocation& invocation) { return rm(invocation, *values); };
}

Action define_volume_prune(OptionSet& options) {
  auto values = std::make_shared<PruneCommand>();
  options.flag("all,a", values->all, "volumes that have a name, too");
  options.flag("force,f", values->force, "do not ask");
  options.flag("dry-run", values->dry_run, "only show what would be removed");
  options.list("filter", values->filters, "KEY=VALUE", "only volumes that fit: label, until, ...");
  return [values](Invocation& invocation) { return prune(invocation, *values); };
}

}  // namespace kelp::cli
