#include <algorithm>
#include <memory>

#include <fmt/format.h>

#include "base/duration_size.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/image_filter.h"
#include "cli/output.h"
#include "engine/check.h"
#include "engine/events.h"
#include "engine/inspect.h"
#include "engine/remove.h"
#include "engine/reset.h"
#include "engine/run.h"
#include "engine/stop.h"
#include "engine/store_care.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/prune.h"
#include "store/volumes.h"

namespace kelp::cli {
namespace {

struct PruneCommand {
  bool all = false, force = false, volumes = false, external = false;
  Strings filters;
};
struct CheckCommand {
  bool quick = false, repair = false, force = false;
};

std::string question(const PruneCommand& values) {
  if (values.external)
    return "WARNING! This command removes all containers whose record cannot be read.\n"
           "Are you sure you want to continue? [y/N] ";
  std::string text = "WARNING! This command removes:\n\t- all stopped containers\n";
  if (values.volumes) text += "\t- all volumes not used by at least one container\n";
  text +=
      values.all ? "\t- all images without at least one container associated with them\n" : "\t- all dangling images\n";
  return text + "\nAre you sure you want to continue? [y/N] ";
}

void add_list(std::string& out, const char* title, const Strings& lines) {
  if (lines.empty()) return;
  out += title;
  out += "\n" + join(lines, "\n") + "\n";
}

Strings prune_containers(Invocation& invocation, const Strings& filters, std::uint64_t& bytes) {
  const ContainerFilter filter(invocation, filters);
  Strings gone;
  for (const auto& record : store::list(invocation.context.layout)) {
    const auto status = store::status(invocation.context.layout, record);
    if (!store::is_at_rest(status.status)) continue;
    if (!filter.matches(record, status)) continue;
    try {
      const auto size = engine::container_size(invocation.context, record).writable;
      engine::RemoveOptions removal;
      removal.at_rest_only = true;
      if (!engine::remove_container(invocation.context, record, removal)) continue;
      bytes += size;
      gone.push_back(record.id);
    } catch (const Error& error) {  // others depend on it
      log::warn("{}", error.message());
    }
  }
  return gone;
}

Strings prune_images(Invocation& invocation, const PruneCommand& values, std::uint64_t& bytes) {
  const auto& layout = invocation.context.layout;
  const ImageFilter filter(invocation, values.filters);
  Strings in_use, gone;
  for (const auto& record : store::list(layout))
    if (!record.image_id.empty()) in_use.push_back(record.image_id);
  for (const auto& image : store::list_images(layout)) {
    const bool used = std::find(in_use.begin(), in_use.end(), image.id) != in_use.end();
    if (used || (!values.all && !image.names.empty()) || !filter.matches(image)) continue;
    const auto removed = store::remove_image(layout, image.id, true, in_use);
    if (!removed || removed->deleted.empty()) continue;
    engine::emit_event(invocation.context, "image", "remove", image.id, image.names.empty() ? "" : image.names.front());
    gone.push_back(removed->deleted);
  }
  if (const auto swept = store::try_sweep_images(layout)) bytes += swept->bytes;
  engine::sweep_trash(invocation.context);
  return gone;
}

Strings prune_volumes(Invocation& invocation, const Strings& filters) {
  const auto& layout = invocation.context.layout;
  check_volume_filters(layout, filters);
  const auto containers = store::list(layout);
  Strings gone;
  for (const auto& volume : store::list_volumes(layout)) {
    if (!store::volume_users(containers, volume.name).empty() || !volume_fits(layout, volume, filters, false)) continue;
    engine::remove_volume(invocation.context, volume, false);
    gone.push_back(volume.name);
  }
  return gone;
}

int prune(Invocation& invocation, const PruneCommand& values) {
  for (const auto& filter : values.filters) {
    const std::string key = filter.substr(0, filter.find('='));
    if (key != "label" && key != "label!" && key != "until")
      throw_usage("--filter {}: unknown key; there are: label, label!, until", kelp::quoted(filter));
  }
  if (values.external && (values.all || values.volumes || !values.filters.empty()))
    throw_usage("--external excludes --all, --volumes and --filter");
  if (!values.force && !confirm(question(values))) return 0;
  if (values.external) {
    std::string lines;
    add_list(lines, "Deleted Containers", engine::remove_remainders(invocation.context));
    print(lines);
    return 0;
  }
  store::prepare(invocation.context.layout);
  std::uint64_t bytes = 0;
  std::string out;
  // Volumes know no age of their own use, so podman refuses the pair too.
  const bool until = std::any_of(values.filters.begin(), values.filters.end(),
                                 [](const std::string& filter) { return starts_with(filter, "until"); });
  if (values.volumes && until) throw_usage("--volumes and --filter until exclude each other");
  add_list(out, "Deleted Containers", prune_containers(invocation, values.filters, bytes));
  if (values.volumes) add_list(out, "Deleted Volumes", prune_volumes(invocation, values.filters));
  add_list(out, "Deleted Images", prune_images(invocation, values, bytes));
  engine::emit_event(invocation.context, "system", "prune", "", "");
  print(out + fmt::format("Total reclaimed space: {}\n", human_size_short(bytes)));
  return 0;
}

int reset(Invocation& invocation, bool force) {
  if (!force && !confirm("WARNING! This will remove:\n"
                         "\t- all containers, running ones too\n\t- all images\n\t- all volumes\n\t- all secrets\n"
                         "Are you sure you want to continue? [y/N] "))
    return 0;
  engine::reset_store(invocation.context);
  return 0;
}

int check(Invocation& invocation, const CheckCommand& values) {
  if (values.force && !values.repair) throw_usage("--force needs --repair");
  const auto report = engine::check_store(invocation.context, !values.quick);
  std::string out;
  for (const auto& damage : report) out += printable(damage.what) + "\n";
  print(out);
  if (report.empty()) return 0;
  if (!values.repair)
    throw Error(fmt::format("{} damaged items in the store", report.size())).with_hint("kelp system check --repair");
  size_t left = 0;
  for (const auto& damage : report) {
    if (engine::repair(invocation.context, damage, values.force))
      print_line("Removed: " + printable(damage.subject));
    else
      ++left;
  }
  // What a damaged container needs is unknown: nothing is swept while there is one.
  if (left == 0) store::sweep_images(invocation.context.layout);
  engine::sweep_trash(invocation.context);
  if (left > 0)
    throw Error(fmt::format("{} damaged containers are left", left)).with_hint("kelp system check --repair --force");
  return 0;
}

/// The user namespace lives as long as a container: when none runs, the next start makes it by /etc/subuid as it is
/// now.
int migrate(Invocation& invocation) {
  std::vector<store::ContainerRecord> running;
  for (const auto& record : store::list(invocation.context.layout))
    if (store::status(invocation.context.layout, record).run) running.push_back(record);
  for (const auto& record : running) {
    engine::stop_container(invocation.context, record, std::nullopt);
    print_line("stopped " + record.name);
  }
  for (const auto& record : running) {
    // With --rm it has gone with its end.
    if (!store::find(invocation.context.layout, record.id)) continue;
    engine::start_container(invocation.context, record, {});
    print_line("started " + record.name);
  }
  return 0;
}

}  // namespace

Action define_system_prune(OptionSet& options) {
  auto values = std::make_shared<PruneCommand>();
  options.flag("all,a", values->all, "all images that no container uses, not only those without a name");
  options.flag("force,f", values->force, "do not ask");
  options.flag("volumes", values->volumes, "volumes that no container uses, too");
  options.flag("external", values->external, "only what is left of containers whose record cannot be read");
  options.list("filter", values->filters, "KEY=VALUE", "only what fits: label, label!, until");
  return [values](Invocation& invocation) { return prune(invocation, *values); };
}

Action define_system_reset(OptionSet& options) {
  auto force = std::make_shared<bool>(false);
  options.flag("force,f", *force, "do not ask");
  return [force](Invocation& invocation) { return reset(invocation, *force); };
}

Action define_system_check(OptionSet& options) {
  auto values = std::make_shared<CheckCommand>();
  options.flag("quick,q", values->quick, "do not read every blob to check its digest");
  options.flag("repair,r", values->repair, "remove damaged images and layers");
  options.flag("force,f", values->force, "with --repair: damaged containers too");
  return [values](Invocation& invocation) { return check(invocation, *values); };
}

Action define_system_migrate(OptionSet& options) {
  options.describe("After a change of /etc/subuid or /etc/subgid: running containers are stopped and started again.");
  return [](Invocation& invocation) { return migrate(invocation); };
}

}  // namespace kelp::cli
