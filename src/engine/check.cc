#include "engine/check.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <set>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/context.h"
#include "engine/images.h"
#include "engine/remove.h"
#include "engine/user_namespace.h"
#include "store/blobs.h"
#include "store/containers.h"
#include "store/images.h"
#include "store/layers.h"
#include "store/prune.h"
#include "store/record_json.h"
#include "sys/directory.h"
#include "sys/lock.h"

namespace kelp::engine {
namespace {

bool has_blob(const Context& context, const std::string& digest, std::uint64_t size) {
  struct stat info {};
  const std::string path = context.layout.blob(digest.substr(digest.find(':') + 1));
  return ::stat(path.c_str(), &info) == 0 && (size == 0 || static_cast<std::uint64_t>(info.st_size) == size);
}

void check_images(Context& context, std::vector<Damage>& found) {
  for (const auto& image : store::list_images(context.layout)) {
    const std::string name = image.names.empty() ? image.id.substr(0, 12) : image.names.front();
    const auto missing = [&](const std::string& what) {
      found.push_back({Damage::Kind::image, image.id, fmt::format("image {}: {} is missing or cut", name, what)});
    };
    if (!has_blob(context, image.digest, 0))
      missing("its manifest");
    else if (!has_blob(context, image.id, 0))
      missing("its configuration");
    else
      for (const auto& layer : image.layers)
        if (!has_blob(context, layer.blob, layer.size) && !store::read_lone_tree(context.layout, layer.chain)) {
          missing("layer " + layer.blob);
          break;
        }
  }
}

void check_layers(Context& context, std::vector<Damage>& found) {
  for (const auto& chain : sys::names_in(context.layout.layers())) {
    if (chain.size() != 64) continue;  // short names, mount points
    for (const auto& map : sys::names_in(context.layout.layers() + "/" + chain)) {
      const std::string path = context.layout.layer(chain, map);
      const auto info = sys::read_small_file(path + "/layer.json");
      struct stat diff {};
      if (info && !info->empty() && ::stat((path + "/diff").c_str(), &diff) == 0) continue;
      found.push_back(
          {Damage::Kind::layer, chain + "/" + map, fmt::format("layer {}: incomplete", chain.substr(0, 12))});
    }
  }
}

void check_containers(Context& context, std::vector<Damage>& found) {
  for (const auto& id : sys::names_in(context.layout.containers())) {
    if (id.size() != 64) continue;
    const auto bad = [&](const std::string& why) {
      found.push_back({Damage::Kind::container, id, fmt::format("container {}: {}", id.substr(0, 12), why)});
    };
    try {
      const std::string path = context.layout.container(id) + "/record.json";
      const auto text = sys::read_small_file(path);
      if (!text) {
        bad("its record is missing");
        continue;
      }
      const auto record = store::record_from_json(*text, path);
      if (!record.config.rootfs.empty()) continue;
      const auto map = layers_map(record);
      const bool complete = store::missing_layers(context.layout, record.layer_chain, map).empty();
      if (!complete && !store::image_by_manifest(context.layout, record.image_digest))
        bad("a layer is missing, and the image is gone");
    } catch (const Error& error) {
      bad(error.message());
    }
  }
}

void remove_broken_container(Context& context, const std::string& id) {
  try {
    if (const auto record = store::find(context.layout, id)) {
      RemoveOptions options;
      options.force = options.depend = true;
      remove_container(context, *record, options);
      return;
    }
  } catch (const Error& error) {
    log::debug("{}", error.message());
  }
  // The record cannot be read: the directory goes, and whatever name pointed to it.
  store::move_to_trash(context.layout, context.layout.container(id));
  store::release_name_of_trashed(context.layout, id);
}

}  // namespace

std::vector<Damage> check_store(Context& context, bool digests) {
  std::vector<Damage> found;
  if (!store::check_version(context.layout)) return found;
  check_images(context, found);
  check_layers(context, found);
  check_containers(context, found);
  if (digests)
    for (const auto& digest : damaged_blobs(context))
      found.push_back({Damage::Kind::blob, digest, fmt::format("blob {}: its content is another one", digest)});
  return found;
}

std::vector<std::string> remove_remainders(Context& context) {
  std::vector<std::string> gone;
  for (const auto& record : store::list_external(context.layout)) {
    if (!record.machine.empty()) continue;  // another machine's, or a newer kelp's
    remove_broken_container(context, record.id);
    gone.push_back(record.id);
  }
  if (!gone.empty()) sweep_trash(context);
  return gone;
}

bool repair(Context& context, const Damage& damage, bool force) {
  const auto& layout = context.layout;
  switch (damage.kind) {
    case Damage::Kind::container:
      if (force) remove_broken_container(context, damage.subject);
      return force;
    case Damage::Kind::layer:
      store::move_to_trash(layout, layout.layers() + "/" + damage.subject);
      return true;
    case Damage::Kind::image:
      store::remove_image(layout, damage.subject, true, {});
      return true;
    case Damage::Kind::blob:
      for (const auto& image : store::list_images(layout)) {
        const bool needs = image.digest == damage.subject || "sha256:" + image.id == damage.subject ||
                           std::any_of(image.layers.begin(), image.layers.end(),
                                       [&](const auto& layer) { return layer.blob == damage.subject; });
        if (needs) store::remove_image(layout, image.id, true, {});
      }
      store::remove_blob(layout, DigestName::require(damage.subject));
      return true;
  }
  return false;
}

}  // namespace kelp::engine
