#include "store/layers.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <random>
#include <utility>

#include <nlohmann/json.hpp>

#include "base/digest_name.h"
#include "base/error.h"
#include "base/log.h"
#include "store/prune.h"
#include "sys/directory.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::store {

namespace {

/// FNV-1a, 64 bits: keys only have to differ between the few maps of one user.
std::uint64_t hash_of(std::string_view text) noexcept {
  std::uint64_t hash = 0xcbf29ce484222325U;
  for (const char c : text) {
    hash ^= static_cast<unsigned char>(c);
    hash *= 0x100000001b3U;
  }
  return hash;
}

std::optional<std::uint32_t> out(const sys::IdRanges& ranges, bool identity, std::uint32_t id) noexcept {
  if (identity) return id;
  std::uint32_t result = 0;
  return sys::map_out(ranges, id, result) ? std::optional(result) : std::nullopt;
}

std::optional<std::uint32_t> in(const sys::IdRanges& ranges, bool identity, std::uint32_t id) noexcept {
  if (identity) return id;
  std::uint32_t result = 0;
  return sys::map_in(ranges, id, result) ? std::optional(result) : std::nullopt;
}

/// Twenty characters that stand for a layer under a map: 120 bits of the chain id as base64url, the key mixed in.
std::string short_name(std::string_view chain, std::string_view key) {
  static constexpr std::string_view kAlphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const auto nibble = [](char c) { return static_cast<unsigned>(c <= '9' ? c - '0' : c - 'a' + 10); };
  std::array<unsigned, 15> bytes{};
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = nibble(chain[2 * i]) << 4U | nibble(chain[2 * i + 1]);
  if (key != "full") {
    const std::uint64_t mix = hash_of(key);
    for (size_t i = 0; i < 8; ++i) bytes[7 + i] ^= static_cast<unsigned>(mix >> (8 * i)) & 0xffU;
  }
  std::string result;
  for (size_t i = 0; i < bytes.size(); i += 3) {
    const unsigned group = bytes[i] << 16U | bytes[i + 1] << 8U | bytes[i + 2];
    for (const unsigned shift : {18U, 12U, 6U, 0U}) result += kAlphabet[group >> shift & 63U];
  }
  return result;
}

std::string links(const Layout& layout) { return layout.layers() + "/l"; }

/// Makes the short link where it is missing or stands for another layer (a damaged store).
void ensure_link(const Layout& layout, std::string_view chain, std::string_view key, const std::string& link) {
  const std::string target = "../" + std::string(chain) + "/" + std::string(key) + "/diff";
  std::array<char, 256> there{};
  const ssize_t length = ::readlink(link.c_str(), there.data(), there.size());
  if (length >= 0 && std::string_view(there.data(), static_cast<size_t>(length)) == target) return;
  if (length >= 0) ::unlink(link.c_str());
  if (::symlink(target.c_str(), link.c_str()) == 0 || errno == EEXIST) return;
  if (errno == ENOENT) {
    sys::mkdirs(links(layout), 0700);
    if (::symlink(target.c_str(), link.c_str()) == 0 || errno == EEXIST) return;
  }
  throw_errno("link the layer {}", link);
}

std::string lone_path(const Layout& layout, std::string_view chain, const IdMapping& map) {
  return layout.layer(chain, map.key) + "/lone";
}

std::string random_hex() {
  std::random_device device;
  return fmt::format("{:08x}{:08x}", device(), device());
}

}  // namespace

IdMapping IdMapping::single() {
  IdMapping map;
  map.key = "single";
  return map;
}

IdMapping IdMapping::ranges(sys::IdRanges uids, sys::IdRanges gids) {
  IdMapping map;
  map.uids = std::move(uids);
  map.gids = std::move(gids);
  map.key = fmt::format("m-{:016x}", hash_of(sys::canonical(map.uids) + "/" + sys::canonical(map.gids)));
  return map;
}

std::optional<std::uint32_t> IdMapping::uid(std::uint32_t id) const noexcept { return out(uids, uids.empty(), id); }
std::optional<std::uint32_t> IdMapping::gid(std::uint32_t id) const noexcept { return out(gids, gids.empty(), id); }
std::optional<std::uint32_t> IdMapping::container_uid(std::uint32_t id) const noexcept {
  return in(uids, uids.empty(), id);
}
std::optional<std::uint32_t> IdMapping::container_gid(std::uint32_t id) const noexcept {
  return in(gids, gids.empty(), id);
}

std::optional<LayerInfo> read_layer(const Layout& layout, std::string_view chain, const IdMapping& map) {
  const std::string path = layout.layer(chain, map.key) + "/layer.json";
  const auto text = sys::read_small_file(path);
  if (!text) return std::nullopt;
  try {
    const auto value = nlohmann::json::parse(*text);
    if (value.at("schema").get<int>() > LayerInfo::kSchema) {
      throw_error("{}: written by a newer kelp", path);  // its containers may be running on it: not to be replaced
    }
    return LayerInfo{.diff_id = value.at("diff_id").get<std::string>(),
                     .blob = value.at("blob").get<std::string>(),
                     .bytes = value.at("bytes").get<std::uint64_t>(),
                     .files = value.at("files").get<std::uint64_t>(),
                     .boot = value.at("boot").get<std::string>()};
  } catch (const nlohmann::json::exception&) {
    log::debug("{} is damaged: the layer is made again", path);
    return std::nullopt;
  }
}

bool layer_is_durable(const Layout& layout, std::string_view chain, const IdMapping& map) {
  const std::string mark = layout.layer(chain, map.key) + "/synced";
  return ::access(mark.c_str(), F_OK) == 0;
}

bool layer_ready(const Layout& layout, std::string_view chain, const IdMapping& map) {
  if (layer_is_durable(layout, chain, map)) return true;
  const auto info = read_layer(layout, chain, map);
  return info && info->boot == boot_id();
}

std::vector<std::string> overlay_lowers(const Layout& layout, const std::vector<std::string>& chains,
                                        const IdMapping& map) {
  std::vector<std::string> result;
  result.reserve(chains.size());
  for (auto chain = chains.rbegin(); chain != chains.rend(); ++chain) {
    if (!is_full_id(*chain)) throw_error("layer {}: not a chain id", *chain);
    if (!layer_ready(layout, *chain, map)) throw_error("layer {} is not unpacked (map {})", *chain, map.key);
    std::string link = links(layout) + "/" + short_name(*chain, map.key);
    ensure_link(layout, *chain, map.key, link);
    result.push_back(std::move(link));
  }
  return result;
}

std::optional<std::uint64_t> layer_size(const Layout& layout, std::string_view chain) {
  for (const IdMapping& map : {IdMapping::full(), IdMapping::single()}) {
    if (const auto info = read_layer(layout, chain, map); info && info->bytes != 0) return info->bytes;
  }
  return std::nullopt;
}

std::vector<size_t> missing_layers(const Layout& layout, const std::vector<std::string>& chains, const IdMapping& map) {
  std::vector<size_t> result;
  for (size_t i = 0; i < chains.size(); ++i) {
    if (!layer_ready(layout, chains[i], map)) result.push_back(i);
  }
  return result;
}

LayerBuilder::LayerBuilder(const Layout& layout, std::string_view chain, const IdMapping& map)
    : layout_(layout), chain_(chain), key_(map.key) {
  if (!is_full_id(chain_)) throw_error("layer {}: not a chain id", chain_);
  lock_path_ = fmt::format("{}/layer-{}-{}", layout_.locks(), chain_, key_);
  chain_lock_ = sys::FileLock::exclusive(lock_path_);
  if (layer_ready(layout_, chain_, map)) {
    complete_ = true;
    return;
  }
  // A sweep takes this lock exclusively while it looks for dead directories: between mkdir and flock it must not look.
  const sys::FileLock birth = sys::FileLock::shared(layout_.locks() + "/layers-tmp");
  path_ = layout_.layers() + "/.tmp-" + random_hex();
  if (::mkdir(path_.c_str(), 0700) < 0) {
    if (errno != ENOENT) throw_errno("make {}", path_);
    sys::mkdirs(layout_.layers(), 0700);
    if (::mkdir(path_.c_str(), 0700) < 0) throw_errno("make {}", path_);
  }
  directory_ = Fd(::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory_) throw_errno("open {}", path_);
  if (::flock(directory_.get(), LOCK_EX | LOCK_NB) < 0) throw_errno("lock {}", path_);
  if (::mkdirat(directory_.get(), "diff", 0755) < 0) throw_errno("make {}/diff", path_);
  diff_ = Fd(::openat(directory_.get(), "diff", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!diff_) throw_errno("open {}/diff", path_);
  if (::fchmod(diff_.get(), 0755) < 0) throw_errno("set the mode of {}/diff", path_);
}

LayerBuilder::~LayerBuilder() {
  if (chain_lock_) ::unlink(lock_path_.c_str());
  if (path_.empty() || published_) return;
  try {
    sys::remove_tree(path_);
  } catch (const Error& error) {
    log::debug("{}", error.message());  // a later sweep finishes it
  }
}

void LayerBuilder::publish(LayerInfo info) {
  const nlohmann::ordered_json value = {{"schema", LayerInfo::kSchema}, {"diff_id", info.diff_id}, {"blob", info.blob},
                                        {"bytes", info.bytes},          {"files", info.files},     {"boot", boot_id()}};
  sys::replace_file(path_ + "/layer.json", value.dump());
  ensure_link(layout_, chain_, key_, links(layout_) + "/" + short_name(chain_, key_));
  const std::string parent = layout_.layers() + "/" + chain_;
  if (::mkdir(parent.c_str(), 0700) < 0 && errno != EEXIST) throw_errno("make {}", parent);
  const std::string target = layout_.layer(chain_, key_);
  move_to_trash(layout_, target);  // one from before a crash, or damaged; usually there is none
  if (::rename(path_.c_str(), target.c_str()) < 0) throw_errno("publish the layer {}", target);
  published_ = true;
}

std::optional<LoneTree> read_lone_tree(const Layout& layout, std::string_view chain) {
  if (!is_full_id(chain)) return std::nullopt;
  for (const IdMapping& map : {IdMapping::full(), IdMapping::single()}) {
    const std::string path = lone_path(layout, chain, map);
    const auto text = sys::read_small_file(path);
    if (!text || !layer_is_durable(layout, chain, map) ||
        ::access((layout.layer(chain, map.key) + "/diff").c_str(), F_OK) != 0) {
      continue;
    }
    const auto value = nlohmann::json::parse(*text, nullptr, false);
    if (value.is_object() && value.value("schema", 0) > LoneTree::kSchema) {
      throw_error("{}: written by a newer kelp", path);
    }
    if (!value.is_object() || !value.contains("tree") || !value["tree"].is_string()) {
      log::debug("{} is damaged: the blob counts as missing", path);
      continue;
    }
    return LoneTree{.map = map, .digest = value["tree"].get<std::string>()};
  }
  return std::nullopt;
}

void write_lone_tree(const Layout& layout, std::string_view chain, const LoneTree& tree) {
  const nlohmann::ordered_json value = {{"schema", LoneTree::kSchema}, {"tree", tree.digest}};
  sys::replace_file(lone_path(layout, chain, tree.map), value.dump(), 0600, sys::Durability::fsync);
}

void forget_lone_tree(const Layout& layout, std::string_view chain) noexcept {
  for (const IdMapping& map : {IdMapping::full(), IdMapping::single()}) {
    ::unlink(lone_path(layout, chain, map).c_str());
  }
}

void sync_layers(const Layout& layout) {
  const auto lock = sys::FileLock::try_exclusive(layout.locks() + "/sync");
  if (!lock) return;
  // What is published after this list was made may not be on disk when syncfs returns: it is not marked.
  std::vector<std::string> unmarked;
  for (const std::string& chain : sys::names_in(layout.layers())) {
    if (!is_full_id(chain)) continue;
    for (const std::string& key : sys::names_in(layout.layers() + "/" + chain)) {
      IdMapping map;
      map.key = key;
      const std::string path = layout.layer(chain, key);
      if (::access((path + "/synced").c_str(), F_OK) != 0 && layer_ready(layout, chain, map)) unmarked.push_back(path);
    }
  }
  if (unmarked.empty()) return;
  const Fd data(::open(layout.layers().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!data || ::syncfs(data.get()) < 0) throw_errno("sync the file system of {}", layout.layers());
  for (const std::string& path : unmarked) {
    const Fd mark(::open((path + "/synced").c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
    if (!mark && errno != ENOENT) throw_errno("mark {} as durable", path);  // ENOENT: swept away meanwhile
  }
}

}  // namespace kelp::store
