#include <memory>

#include "base/error.h"
#include "cli/command_actions.h"
#include "cli/container_select.h"
#include "cli/output.h"
#include "engine/remove.h"
#include "store/containers.h"

namespace kelp::cli {
namespace {

struct RmCommand {
  ContainerChoice choice;
  engine::RemoveOptions removal;
  std::optional<unsigned> time;
};

// Exit statuses of `rm` as scripts know them from podman-rm(1).
constexpr int kExitMissing = 1, kExitRunning = 2;

void check_stopped(Invocation& invocation, const store::ContainerRecord& record) {
  const auto status = store::status(invocation.context.layout, record).status;
  if (store::is_at_rest(status)) return;
  throw Error(fmt::format("container {} is {}: running or paused containers cannot be removed without force",
                          record.name, store::status_name(status)),
              kExitRunning)
      .with_hint(fmt::format("kelp stop {}, or kelp rm --force {}", record.name, record.name));
}

int rm(Invocation& invocation, RmCommand& values) {
  if (values.time) {
    if (!values.removal.force) throw_usage("--time needs --force");
    values.removal.timeout = *values.time;
    values.removal.time_given = true;
  }
  // --force: a container that is not there is what was asked for.
  values.choice.ignore = values.choice.ignore || values.removal.force;
  values.choice.missing_code = kExitMissing;
  // All go, so dependents may go first; without --force that would end running ones.
  if (values.choice.all && values.removal.force) values.removal.depend = true;
  ContainerSelection selection(invocation, values.choice, "the name or ID of a container");
  return selection.for_each([&](const Chosen& chosen) {
    // With --depend and --all, an earlier one may have taken this one along.
    if (values.removal.depend && !store::find(invocation.context.layout, chosen.record.id)) return;
    if (!values.removal.force) check_stopped(invocation, chosen.record);
    engine::remove_container(invocation.context, chosen.record, values.removal);
    print_line(chosen.word);
  });
}

struct PruneCommand {
  bool force = false;
  Strings filters;
};

int prune(Invocation& invocation, const PruneCommand& values) {
  if (!values.force && !confirm("WARNING! This will remove all non running containers.\n"
                                "Are you sure you want to continue? [y/N] ")) {
    return 0;
  }
  ContainerChoice choice;
  choice.all = true;
  choice.filters = values.filters;
  ContainerSelection selection(invocation, choice, "");
  engine::RemoveOptions removal;
  removal.at_rest_only = true;
  return selection.for_each([&](const Chosen& chosen) {
    if (engine::remove_container(invocation.context, chosen.record, removal)) print_line(chosen.record.id);
  });
}

}  // namespace

Action define_rm(OptionSet& options) {
  auto values = std::make_shared<RmCommand>();
  options.arguments("CONTAINER...", 0, -1, Complete::container);
  options.flag("force,f", values->removal.force, "stop running containers first, do not mind missing ones");
  options.flag("volumes,v", values->removal.volumes, "remove anonymous volumes of the container too");
  options.flag("depend", values->removal.depend, "remove containers that depend on it first");
  options.number("time,t", values->time, "SECONDS", "with --force: time between the stop signal and SIGKILL")
      .shows("10");
  options.flag("all,a", values->choice.all, "all containers");
  options.flag("ignore,i", values->choice.ignore, "do not mind containers that are not there");
  add_latest(options, values->choice.latest);
  options.list("filter", values->choice.filters, "KEY=VALUE", "containers that fit, as in ps");
  options.list("cidfile", values->choice.cidfiles, "FILE", "take the container's ID from a file")
      .complete(Complete::file);
  return [values](Invocation& invocation) { return rm(invocation, *values); };
}

Action define_container_prune(OptionSet& options) {
  auto values = std::make_shared<PruneCommand>();
  options.flag("force,f", values->force, "do not ask");
  options.list("filter", values->filters, "KEY=VALUE", "only containers that fit: label, until, ...");
  return [values](Invocation& invocation) { return prune(invocation, *values); };
}

}  // namespace kelp::cli
