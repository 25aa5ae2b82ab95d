#include "image/transports/docker_store.h"

#include <unistd.h>

#include <cstdlib>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "image/digest.h"
#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "sys/caller_id.h"
#include "sys/directory.h"
#include "sys/idmap.h"
#include "sys/lock.h"
#include "sys/safe_path.h"

namespace kelp::image {

namespace {

using nlohmann::json;

constexpr size_t kMaxNames = 64 << 20;
constexpr const char* kDrivers[] = {"overlay2", "fuse-overlayfs", "vfs"};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string default_root() {
  if (sys::own_uid_outside() == 0) return "/var/lib/docker";
  const std::string data = environment("XDG_DATA_HOME");
  return (starts_with(data, "/") ? data : environment("HOME") + "/.local/share") + "/docker";
}

/// A file of one line.
std::string line_of(const std::string& path) {
  const auto text = sys::read_small_file(path, 4096);
  if (!text) throw_error("{} is missing", path);
  return std::string(trim(*text));
}

}  // namespace

DockerStore::DockerStore(const std::string& root) : root_(sys::clean_path(root.empty() ? default_root() : root)) {
  for (const char* driver : kDrivers) {
    if (!driver_.empty() || ::access((root_ + "/image/" + driver + "/repositories.json").c_str(), F_OK) < 0) continue;
    driver_ = driver;
  }
  if (driver_.empty()) {
    if (::access(root_.c_str(), R_OK | X_OK) < 0) throw_errno("open Docker's store {}", root_);
    throw Error(fmt::format("{}: there are no images of Docker (of overlay2, fuse-overlayfs or vfs)", root_))
        .with_hint("where containerd keeps them: docker save -o FILE IMAGE, then kelp load -i FILE");
  }
  read_names();
}

void DockerStore::read_names() {
  const std::string path = images() + "/repositories.json";
  const auto text = sys::read_small_file(path, kMaxNames);
  if (!text) return;
  try {
    const json document = json::parse(*text);
    for (const auto& [repository, entries] : document.at("Repositories").items()) {
      for (const auto& [name, id] : entries.items()) {
        const auto digest = DigestName::parse(id.get<std::string>());
        if (!digest || digest->algorithm() != "sha256") continue;
        const std::string hex(digest->hex());
        try {
          const spec::ImageName parsed = spec::parse_image_name(name);
          if (parsed.digest.empty()) {
            names_[hex].push_back(parsed.tagged().full());
          } else {
            repos_[hex].push_back(parsed.base());
          }
        } catch (const UsageError& error) {
          log::warn("{}: {}", path, error.message());
        }
      }
    }
  } catch (const json::exception& error) {
    throw_error("{}: damaged: {}", path, error.what());
  }
}

std::vector<std::string> DockerStore::image_ids() const {
  std::vector<std::string> ids = sys::names_in(images() + "/imagedb/content/sha256");
  std::erase_if(ids, [](const std::string& name) { return !is_full_id(name); });
  return ids;
}

ForeignImage DockerStore::find(const std::string& id) const {
  ForeignImage image;
  image.id = id;
  const std::string path = images() + "/imagedb/content/sha256/" + id;
  auto text = sys::read_small_file(path, spec::kMaxImageConfigBytes);
  if (!text) throw_error("{} is missing", path);
  image.config_text = std::move(*text);
  if (const auto found = names_.find(id); found != names_.end()) image.names = found->second;
  if (const auto found = repos_.find(id); found != repos_.end()) image.repos = found->second;
  const spec::ImageConfig config = spec::parse_image_config(image.config_text, path);
  const std::vector<std::string> chains = chain_ids(config.diff_ids);
  for (size_t i = 0; i < chains.size(); ++i) {
    const std::string layer = images() + "/layerdb/sha256/" + chains[i];
    const std::string tree = line_of(layer + "/cache-id");
    if (tree.empty() || tree.front() == '.' || tree.find('/') != std::string::npos)
      throw_error("{}/cache-id: {} is no directory of a layer", layer, kelp::quoted(tree));
    image.layers.push_back(
        {.diff_id = config.diff_ids[i],
         .size = 0,
         .recipe = layer + "/tar-split.json.gz",
         .tree = driver_ == "vfs" ? root_ + "/vfs/dir/" + tree : root_ + "/" + driver_ + "/" + tree + "/diff"});
  }
  return image;
}

}  // namespace kelp::image
