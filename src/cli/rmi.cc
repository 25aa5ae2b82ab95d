#include <algorithm>
#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "cli/command_actions.h"
#include "cli/image_filter.h"
#include "cli/output.h"
#include "engine/check.h"
#include "engine/events.h"
#include "engine/remove.h"
#include "engine/store_care.h"
#include "store/containers.h"
#include "store/image_lists.h"
#include "store/images.h"
#include "store/prune.h"

namespace kelp::cli {
namespace {

struct RmiCommand {
  bool all = false, force = false, ignore = false;
  bool no_prune = false;  ///< podman takes nameless parents along unless this is given; here no image has a parent
};

struct PruneCommand {
  bool all = false, force = false, external = false;
  Strings filters;
};

Strings images_in_use(const store::Layout& layout) {
  Strings ids;
  for (const auto& record : store::list(layout)) {
    if (!record.image_id.empty()) ids.push_back(record.image_id);
  }
  return ids;
}

void remove_users(Invocation& invocation, const std::string& image_id) {
  engine::RemoveOptions removal;
  removal.force = removal.volumes = removal.depend = true;
  for (const auto& record : store::list(invocation.context.layout)) {
    if (record.image_id == image_id) engine::remove_container(invocation.context, record, removal);
  }
}

/// As podman-rmi(1) has it: 1 where the image is not there, 2 where it is in use.
[[noreturn]] void missing_image(const store::Layout& layout, const std::string& word) {
  try {
    store::require_image(layout, word);
    throw Error(fmt::format("{}: image not known", word), 1);
  } catch (const UsageError& error) {
    throw Error(error.message(), 1).with_hint(error.hint());
  }
}

/// Blobs and layers that nothing reaches any more, then the trash.
void sweep(Invocation& invocation) {
  store::try_sweep_images(invocation.context.layout);  // does not wait for a pull that takes minutes
  engine::sweep_trash(invocation.context);
}

void tell(Invocation& invocation, const std::string& id, const store::RemovedImage& removed) {
  for (const auto& name : removed.untagged) engine::emit_event(invocation.context, "image", "untag", id, name);
  if (!removed.deleted.empty()) engine::emit_event(invocation.context, "image", "remove", id, id);
}

int rmi(Invocation& invocation, const RmiCommand& values) {
  const auto& layout = invocation.context.layout;
  if (values.all == !invocation.arguments.empty()) {
    throw UsageError(values.all ? "--all and names exclude each other" : "kelp rmi needs the name or ID of an image")
        .with_hint("see 'kelp rmi --help'");
  }
  store::prepare(layout);  // where nothing was ever stored, there is nothing to lock either
  Strings words = invocation.arguments;
  if (values.all) {
    for (const auto& image : store::list_images(layout)) words.push_back(image.id);
    for (const auto& list : store::all_lists(layout)) words.push_back(list.digest);
  }
  std::string out;
  std::vector<Error> failures;
  for (const auto& word : words) {
    try {
      const auto image = store::find_image(layout, word);
      if (!image) {
        if (const auto gone = store::remove_artifact(layout, word)) {
          for (const auto& name : *gone) out += fmt::format("Untagged: {}\n", name);
          continue;
        }
        if (const auto gone = store::remove_list_name(layout, word)) {
          for (const auto& name : gone->untagged) out += fmt::format("Untagged: {}\n", name);
          if (!gone->deleted.empty()) out += fmt::format("Deleted: {}\n", gone->deleted);
          continue;
        }
      }
      if (image && values.force) remove_users(invocation, image->id);
      // Another command may remove it first.
      const auto removed =
          !image ? std::nullopt : store::remove_image(layout, word, values.force || values.all, images_in_use(layout));
      if (!removed && (values.ignore || values.force || values.all)) continue;
      if (!removed) missing_image(layout, word);
      tell(invocation, image->id, *removed);
      for (const auto& name : removed->untagged) out += fmt::format("Untagged: {}\n", name);
      if (!removed->deleted.empty()) out += fmt::format("Deleted: {}\n", removed->deleted);
    } catch (const Error& error) {
      failures.push_back(error);
    }
  }
  sweep(invocation);
  print(out);
  for (size_t i = 0; i + 1 < failures.size(); ++i) log::error("{}", failures[i].what());
  if (!failures.empty()) throw failures.back();
  return 0;
}

int prune(Invocation& invocation, const PruneCommand& values) {
  if (!values.force &&
      !confirm(values.all ? "WARNING! This will remove all images without at least one container associated to them.\n"
                            "Are you sure you want to continue? [y/N] "
                          : "WARNING! This will remove all dangling images.\n"
                            "Are you sure you want to continue? [y/N] ")) {
    return 0;
  }
  const auto& layout = invocation.context.layout;
  store::prepare(layout);
  if (values.external) engine::remove_remainders(invocation.context);
  const ImageFilter filter(invocation, values.filters);
  const Strings in_use = images_in_use(layout);
  std::string out;
  for (const auto& image : store::list_images(layout)) {
    const bool used = std::find(in_use.begin(), in_use.end(), image.id) != in_use.end();
    if (used || (!values.all && !image.names.empty()) || !filter.matches(image)) continue;
    const auto removed = store::remove_image(layout, image.id, true, in_use);
    if (!removed) continue;  // by another command, meanwhile
    tell(invocation, image.id, *removed);
    if (!removed->deleted.empty()) out += removed->deleted + "\n";
  }
  sweep(invocation);
  print(out);
  return 0;
}

}  // namespace

Action define_rmi(OptionSet& options) {
  auto values = std::make_shared<RmiCommand>();
  options.arguments("IMAGE...", 0, -1, Complete::image);
  options.flag("all,a", values->all, "all images");
  options.flag("force,f", values->force, "also the containers that use the image; do not mind missing images");
  options.flag("ignore,i", values->ignore, "do not mind images that are not there");
  options.flag("no-prune", values->no_prune, "leave the images that these were made from: they always stay");
  return [values](Invocation& invocation) { return rmi(invocation, *values); };
}

Action define_image_prune(OptionSet& options) {
  auto values = std::make_shared<PruneCommand>();
  options.flag("all,a", values->all, "all images that no container uses, not only those without a name");
  options.flag("force,f", values->force, "do not ask");
  options.flag("external", values->external, "first what is left of containers whose record cannot be read");
  options.list("filter", values->filters, "KEY=VALUE", "only images that fit: label, until, ...");
  return [values](Invocation& invocation) { return prune(invocation, *values); };
}

}  // namespace kelp::cli
