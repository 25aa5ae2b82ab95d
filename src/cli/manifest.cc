#include <memory>

#include "base/error.h"
#include "base/log.h"
#include "cli/command_actions.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/registry_options.h"
#include "engine/registries.h"
#include "engine/remove.h"
#include "store/image_lists.h"
#include "store/prune.h"

namespace kelp::cli {
namespace {

/// Exit status of `rm` alone when an index is not there, as that of `rmi`.
constexpr int kExitMissing = 1;

/// One operation of kelp-image's verb; prints the index's new ID, or its document.
int edit(Invocation& invocation, const char* operation, const engine::ManifestOptions& options) {
  ProgressView progress(false);
  const std::string result =
      engine::edit_manifest_list(invocation.context, operation, invocation.arguments, options, progress.callback());
  progress.finish();
  if (std::string_view(operation) == "inspect") {
    print(result);
  } else {
    print_line(result.substr(result.find(':') + 1));
  }
  return 0;
}

void add_description(OptionSet& options, engine::ManifestOptions& values) {
  options.list("annotation", values.annotations, "KEY=VALUE", "annotation of the entry");
  options.text("os", values.os, "OS", "operating system of the entry");
  options.text("arch", values.arch, "ARCH", "architecture of the entry");
  options.text("variant", values.variant, "VARIANT", "variant of the architecture");
}

}  // namespace

Action define_manifest_create(OptionSet& options) {
  auto values = std::make_shared<engine::ManifestOptions>();
  options.arguments("LIST [IMAGE...]", 1, -1, Complete::image);
  options.flag("all", values->all, "all images of an index that is named");
  options.flag("amend,a", values->amend, "an index of that name may be there");
  options.list("annotation", values->annotations, "KEY=VALUE", "annotation of the index");
  add_access_options(options, values->access, {.creds = false});
  return [values](Invocation& invocation) { return edit(invocation, "create", *values); };
}

Action define_manifest_add(OptionSet& options) {
  auto values = std::make_shared<engine::ManifestOptions>();
  options.arguments("LIST IMAGE...", 2, -1, Complete::image);
  options.flag("all", values->all, "all images of an index that is named");
  add_description(options, *values);
  add_access_options(options, values->access);
  return [values](Invocation& invocation) { return edit(invocation, "add", *values); };
}

Action define_manifest_annotate(OptionSet& options) {
  auto values = std::make_shared<engine::ManifestOptions>();
  options.arguments("LIST IMAGE|DIGEST", 2, 2, Complete::image);
  add_description(options, *values);
  return [values](Invocation& invocation) { return edit(invocation, "annotate", *values); };
}

Action define_manifest_remove(OptionSet& options) {
  auto values = std::make_shared<engine::ManifestOptions>();
  options.arguments("LIST DIGEST", 2, 2, Complete::image);
  return [values](Invocation& invocation) { return edit(invocation, "remove", *values); };
}

Action define_manifest_inspect(OptionSet& options) {
  auto values = std::make_shared<engine::ManifestOptions>();
  options.arguments("LIST|IMAGE", 1, 1, Complete::image);
  add_access_options(options, values->access);
  return [values](Invocation& invocation) { return edit(invocation, "inspect", *values); };
}

Action define_manifest_exists(OptionSet& options) {
  options.arguments("LIST", 1, 1, Complete::image);
  return [](Invocation& invocation) {
    return store::find_list(invocation.context.layout, invocation.arguments[0]).has_value() ? 0 : 1;
  };
}

Action define_manifest_rm(OptionSet& options) {
  auto ignore = std::make_shared<bool>(false);
  options.arguments("LIST...", 1, -1, Complete::image);
  options.flag("ignore,i", *ignore, "do not mind indexes that are not there");
  return [ignore](Invocation& invocation) {
    store::prepare(invocation.context.layout);
    std::string out;
    std::vector<Error> failures;
    for (const std::string& word : invocation.arguments) {
      if (*ignore && !store::find_list(invocation.context.layout, word)) continue;
      try {
        const store::ImageList removed = store::remove_list(invocation.context.layout, word);
        for (const std::string& name : removed.names) out += "Untagged: " + name + "\n";
        out += "Deleted: " + removed.digest.substr(removed.digest.find(':') + 1) + "\n";
      } catch (const Error& error) {
        failures.push_back(Error(error.message(), kExitMissing).with_hint(error.hint()));
      }
    }
    store::try_sweep_images(invocation.context.layout);
    engine::sweep_trash(invocation.context);
    print(out);
    for (size_t i = 0; i + 1 < failures.size(); ++i) log::error("{}", failures[i].what());
    if (!failures.empty()) throw failures.back();
    return 0;
  };
}

}  // namespace kelp::cli
