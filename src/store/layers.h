#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/owned.h"
#include "store/layout.h"
#include "sys/idmap.h"
#include "sys/lock.h"

/// Unpacked layers, a cache that can always be made again from the kept blobs (but see LoneTree).
///
///     layers/<chain hex>/<map key>/diff/          the tree, as overlay takes it
///                                  layer.json     LayerInfo
///                                  synced         present when a syncfs has made all of it durable
///                                  owners         single-ID mode: intended owners (see owners_path)
///                                  lone           the blob was given up (see LoneTree)
///     layers/l/<20 characters>                    link to ../<chain>/<map>/diff: short paths for overlay options
///     layers/.tmp-<random>/                       being unpacked; the directory is flocked by its owner
///
/// Trust: a layer is published without waiting for the disk. It counts as there when `synced` exists or when it
/// was unpacked in this very boot; after a crash an unmarked one is unpacked again.
namespace kelp::store {

/// How ids of a container's files are written to disk, seen from S (container id → id in S).
struct IdMapping {
  sys::IdRanges uids, gids;
  std::string key = "full";  ///< "full", "single", "m-<16 hex>": part of a layer's path

  /// Identity: the id in the archive is the id in S.
  static IdMapping full() { return {}; }
  /// Everything belongs to 0 of S; intended owners go to the sidecar.
  static IdMapping single();
  /// A child user namespace of S. Ranges: inside = id in the container, outside = id in S.
  static IdMapping ranges(sys::IdRanges uids, sys::IdRanges gids);

  [[nodiscard]] bool is_single() const noexcept { return key == "single"; }
  /// nullopt: the id is not mapped.
  [[nodiscard]] std::optional<std::uint32_t> uid(std::uint32_t id) const noexcept;
  [[nodiscard]] std::optional<std::uint32_t> gid(std::uint32_t id) const noexcept;
  /// The other way round, for packing; nullopt: no container id has it.
  [[nodiscard]] std::optional<std::uint32_t> container_uid(std::uint32_t id) const noexcept;
  [[nodiscard]] std::optional<std::uint32_t> container_gid(std::uint32_t id) const noexcept;
};

struct LayerInfo {
  static constexpr int kSchema = 1;
  std::string diff_id;      ///< "sha256:…"
  std::string blob;         ///< "sha256:…", "" = made here (commit, build)
  std::uint64_t bytes = 0;  ///< size of the uncompressed tar
  std::uint64_t files = 0;
  std::string boot;  ///< boot id at unpack time
};

/// true when the layer may be used now (see Trust above). One access(2) in the common case.
bool layer_ready(const Layout& layout, std::string_view chain, const IdMapping& map);
std::optional<LayerInfo> read_layer(const Layout& layout, std::string_view chain, const IdMapping& map);
/// Bytes of the layer's uncompressed tar, when it is unpacked under one of the two usual maps.
std::optional<std::uint64_t> layer_size(const Layout& layout, std::string_view chain);
/// Directories for overlay, top first, as absolute short paths (layers/l/…).
/// chains  base first, as in ImageRecord. throws Error naming the first layer that is not ready
std::vector<std::string> overlay_lowers(const Layout& layout, const std::vector<std::string>& chains,
                                        const IdMapping& map);
/// Chains (base first, indexes) that are not ready under this map.
std::vector<size_t> missing_layers(const Layout& layout, const std::vector<std::string>& chains, const IdMapping& map);

/// A layer being made. Call inside S (its files get ids of S). Dropped without publish(), the directory is removed.
class LayerBuilder {
 public:
  /// Waits for another process that makes the same layer; afterwards complete() may already be true.
  LayerBuilder(const Layout& layout, std::string_view chain, const IdMapping& map);
  LayerBuilder(const LayerBuilder&) = delete;
  LayerBuilder& operator=(const LayerBuilder&) = delete;
  ~LayerBuilder();

  [[nodiscard]] bool complete() const noexcept { return complete_; }
  /// The empty directory `diff`, to be filled.
  [[nodiscard]] int diff_fd() const noexcept { return diff_.get(); }
  /// Directory that holds diff; files beside it: owners_path().
  [[nodiscard]] const std::string& path() const noexcept { return path_; }
  /// Writes layer.json (boot is filled in) and renames the directory to its place. An untrusted old one goes to
  /// the trash.
  void publish(LayerInfo info);

 private:
  Layout layout_;
  std::string chain_, key_, path_, lock_path_;
  std::optional<sys::FileLock> chain_lock_;
  Fd directory_;  ///< flocked as long as we live: an unlocked one is garbage
  Fd diff_;
  bool complete_ = false, published_ = false;
};

/// Intended owners of single-ID mode: `<layer>/owners`, one record per path: "uid gid path\0".
inline std::string owners_path(std::string_view layer_dir) { return std::string(layer_dir) + "/owners"; }

/// A layer whose blob was given up on purpose (keep-blobs = false): its tree is all there is of it. Recorded beside the
/// tree before the blob goes; means nothing while the store has the blob (again).
struct LoneTree {
  static constexpr int kSchema = 1;
  IdMapping map;       ///< full or single, whichever the tree was unpacked under
  std::string digest;  ///< "sha256:…" of the tree as an archive (image/lone_trees.h)
};
/// nullopt: the blob was not given up, or the tree is not there to be relied on.
std::optional<LoneTree> read_lone_tree(const Layout& layout, std::string_view chain);
/// On the disk when it returns.
void write_lone_tree(const Layout& layout, std::string_view chain, const LoneTree& tree);
/// The blob is here again.
void forget_lone_tree(const Layout& layout, std::string_view chain) noexcept;
/// Whether a syncfs has made the layer durable: it outlives a power cut.
bool layer_is_durable(const Layout& layout, std::string_view chain, const IdMapping& map);

/// Makes every unmarked layer of this boot durable (one syncfs of the data directory) and marks it. Slow: for a
/// detached child after the result was printed.
void sync_layers(const Layout& layout);

}  // namespace kelp::store
