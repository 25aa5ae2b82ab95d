#include <memory>

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "engine/container_mount.h"
#include "engine/remove.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct MountCommand {
  ContainerChoice choice;
  std::string format;
  bool no_trunc = false;
};

using Mounts = std::vector<std::pair<store::ContainerRecord, std::string>>;

void print_mounts(const Mounts& mounts, const MountCommand& values) {
  if (values.format == "json") {
    Json list = Json::array();
    for (const auto& [record, path] : mounts)
      list.push_back({{"id", record.id}, {"Names", {record.name}}, {"mountpoint", path}});
    print(pretty_json(list));
    return;
  }
  for (const auto& [record, path] : mounts)
    print_line((values.no_trunc ? record.id : record.id.substr(0, 12)) + "  " + path);
}

int mount(Invocation& invocation, const MountCommand& values) {
  const bool listing = invocation.arguments.empty() && !values.choice.all && !values.choice.latest;
  if (listing) {
    print_mounts(engine::mounted_containers(invocation.context), values);
    return 0;
  }
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  Mounts mounts;
  const int code = selection.for_each([&](const Chosen& chosen) {
    const std::string path = engine::mount_container(invocation.context, chosen.record);
    mounts.emplace_back(chosen.record, path);
    if (values.format.empty() && selection.chosen().size() == 1) print_line(path);
  });
  if (!values.format.empty() || selection.chosen().size() > 1) print_mounts(mounts, values);
  return code;
}

struct UnmountCommand {
  ContainerChoice choice;
  bool force = false;
};

int unmount(Invocation& invocation, const UnmountCommand& values) {
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  return selection.for_each([&](const Chosen& chosen) {
    const bool was = engine::unmount_container(invocation.context, chosen.record, values.force);
    if (!was && values.choice.latest) throw_usage("container {} is not mounted here", chosen.record.name);
    if (was || !values.choice.all) print_line(chosen.word);  // to take away what is not there is no failure
  });
}

struct CleanupCommand {
  ContainerChoice choice;
  bool remove = false;
};

int cleanup(Invocation& invocation, const CleanupCommand& values) {
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  return selection.for_each([&](const Chosen& chosen) {
    engine::clean_up_container(invocation.context, chosen.record);
    if (values.remove) engine::remove_container(invocation.context, chosen.record, {});
    print_line(chosen.word);
  });
}

}  // namespace

Action define_mount(OptionSet& options) {
  auto values = std::make_shared<MountCommand>();
  options.arguments("[CONTAINER...]", 0, -1, Complete::container);
  options.flag("all,a", values->choice.all, "all containers");
  options.text("format", values->format, "FORMAT", "shape of the list").one_of({"json"});
  options.flag("no-trunc", values->no_trunc, "show whole IDs").also("notruncate");
  add_latest(options, values->choice.latest);
  options.describe(
      "Mounts root file systems of containers and prints where; without a name, lists what is mounted. Works in a "
      "shell of `kelp unshare` and lasts as long as that.",
      "kelp unshare sh -c 'cat $(kelp mount web)/etc/os-release'");
  return [values](Invocation& invocation) { return mount(invocation, *values); };
}

Action define_unmount(OptionSet& options) {
  auto values = std::make_shared<UnmountCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options.flag("all,a", values->choice.all, "all containers that are mounted");
  options.flag("force,f", values->force, "also while a program uses it");
  add_latest(options, values->choice.latest);
  return [values](Invocation& invocation) { return unmount(invocation, *values); };
}

Action define_cleanup(OptionSet& options) {
  auto values = std::make_shared<CleanupCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::stopped);
  options.flag("all,a", values->choice.all, "all containers that do not run");
  options.flag("rm", values->remove, "remove the container afterwards");
  add_latest(options, values->choice.latest);
  options.describe(
      "Takes away what is left of a container whose monitor was killed: networks, mounts, control groups.");
  return [values](Invocation& invocation) { return cleanup(invocation, *values); };
}

}  // namespace kelp::cli
