#include "engine/store_care.h"

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/image_program.h"
#include "engine/remove.h"
#include "engine/session.h"
#include "engine/settings.h"
#include "store/blobs.h"
#include "store/containers.h"
#include "store/layers.h"
#include "store/prune.h"
#include "store/volumes.h"
#include "sys/directory.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

using Json = nlohmann::json;

VerifyReport verify_store(Context& context, bool repair, const RegistryAccess& access, const ProgressFn& progress) {
  store::prepare(context.layout);
  ImageCall call{.arguments = {"store-verify"}, .progress = &progress};
  const auto add = [&](const char* option, const std::string& value) {
    if (!value.empty()) call.arguments.insert(call.arguments.end(), {option, value});
  };
  add("--authfile", access.authfile);
  add("--creds", access.creds);
  add("--cert-dir", access.cert_dir);
  if (access.tls_verify) call.arguments.push_back(*access.tls_verify ? "--tls-verify=true" : "--tls-verify=false");
  if (repair) call.arguments.emplace_back("--repair");
  const Json document = parse_result(run_image_program(context, call));
  VerifyReport report;
  for (const Json& item : document.at("problems")) {
    report.problems.push_back({.kind = item.value("kind", ""),
                               .subject = item.value("subject", ""),
                               .what = item.value("what", ""),
                               .why_not = item.value("why_not", ""),
                               .repaired = item.value("repaired", false)});
  }
  report.orphans = document.at("orphans").get<std::vector<std::string>>();
  report.blobs = document.value("blobs", std::uint64_t{0});
  report.layers = document.value("layers", std::uint64_t{0});
  report.images = document.value("images", std::uint64_t{0});
  report.bytes = document.value("bytes", std::uint64_t{0});
  if (repair) sweep_trash(context);
  return report;
}

CollectReport collect_garbage(Context& context, std::optional<std::time_t> unused_since) {
  store::prepare(context.layout);
  const store::SweepResult swept = store::sweep_images(context.layout, unused_since);
  CollectReport report{.blobs = swept.blobs.size(), .layers = swept.layers.size(), .bytes = swept.bytes};
  if (!load_settings(context.global.modules).keep_blobs) {
    const Json given = parse_result(run_image_program(context, {.arguments = {"give-up-blobs"}}));
    report.blobs += given.value("blobs", std::uint64_t{0});
    report.bytes += given.value("bytes", std::uint64_t{0});
  }
  // Even when the trash is empty: what killed pulls have left lies elsewhere.
  in_userns(context, [&] { store::empty_trash(context.layout); });
  return report;
}

DiskUse disk_use(Context& context) {
  const store::Layout& layout = context.layout;
  DiskUse use;
  for (const DigestName& blob : store::list_blobs(layout)) {
    use.blobs += store::blob_size(layout, blob).value_or(0);
    ++use.blob_count;
  }
  for (const std::string& chain : sys::names_in(layout.layers())) {
    if (!is_full_id(chain)) continue;
    for (const std::string& key : sys::names_in(layout.layers() + "/" + chain)) {
      store::IdMapping map;
      map.key = key;
      if (const auto info = store::read_layer(layout, chain, map)) use.layers += info->bytes;
      ++use.layer_count;
    }
  }
  std::vector<std::string> paths;
  for (const auto& record : store::list(layout)) {
    use.containers.emplace_back(record.id, 0);
    paths.push_back(layout.container(record.id) + "/upper");
  }
  for (const auto& volume : store::list_volumes(layout)) {
    use.volumes.emplace_back(volume.name, 0);
    paths.push_back(layout.volume(volume.name) + "/_data");
  }
  if (paths.empty()) return use;
  // Files of subordinate ids can be looked at only inside S.
  const std::string sizes = ask_in_userns(context, [&] {
    std::string text;
    for (const std::string& path : paths) {
      std::uint64_t bytes = 0;
      try {
        bytes = sys::tree_size(path).bytes;
      } catch (const Error&) {  // gone meanwhile
      }
      text += std::to_string(bytes) + "\n";
    }
    return text;
  });
  const std::vector<std::string> lines = split(sizes, '\n');
  for (size_t i = 0; i < paths.size() && i < lines.size(); ++i) {
    const auto bytes = static_cast<std::uint64_t>(to_int(lines[i], 0).value_or(0));
    if (i < use.containers.size()) {
      use.containers[i].second = bytes;
    } else {
      use.volumes[i - use.containers.size()].second = bytes;
    }
  }
  return use;
}

}  // namespace kelp::engine
