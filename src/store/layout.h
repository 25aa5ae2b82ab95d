#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace kelp::store {

/// Every path below kelp's directories, in one place. Values only: nothing here touches the disk except
/// resolve() and prepare(). Paths are absolute, without a trailing slash.
///
///     data/   oci-layout index.json blobs/sha256/…      the image store, an OCI image layout
///             images/{<manifest hex>.json,names}        derived records, see images.h
///             partial/<hex>                             blobs being written
///             layers/<chain-id hex>/<map>/{diff,…}      unpacked layers, a cache
///             containers/<id>/{record.json,config.json,exit.json,upper,work,merged}
///             names/<name>                              symlink to the id: the container name index
///             volumes/<name>/{volume.json,_data}  secrets/  trash/  locks/  version
///     run/    <id>/{state.json,attach.sock,monitor.plan,…}  gone at logout, rebuilt when missing
///     cache/  seccomp/*.bpf
struct Layout {
  std::string data;
  std::string run;
  std::string cache;

  [[nodiscard]] std::string oci_layout() const { return data + "/oci-layout"; }
  [[nodiscard]] std::string index() const { return data + "/index.json"; }
  [[nodiscard]] std::string blobs() const { return data + "/blobs/sha256"; }
  [[nodiscard]] std::string blob(std::string_view hex) const { return blobs() + "/" + std::string(hex); }
  [[nodiscard]] std::string layers() const { return data + "/layers"; }
  /// chain_hex  hex digits of the chain id; map  the id map's key ("full", "single", or a hash), see layers.h
  [[nodiscard]] std::string layer(std::string_view chain_hex, std::string_view map) const {
    return layers() + "/" + std::string(chain_hex) + "/" + std::string(map);
  }
  [[nodiscard]] std::string containers() const { return data + "/containers"; }
  [[nodiscard]] std::string container(std::string_view id) const { return containers() + "/" + std::string(id); }
  [[nodiscard]] std::string events() const { return data + "/events.log"; }
  [[nodiscard]] std::string names() const { return data + "/names"; }
  [[nodiscard]] std::string volumes() const { return data + "/volumes"; }
  [[nodiscard]] std::string volume(std::string_view name) const { return volumes() + "/" + std::string(name); }
  [[nodiscard]] std::string secrets() const { return data + "/secrets"; }
  [[nodiscard]] std::string trash() const { return data + "/trash"; }
  [[nodiscard]] std::string locks() const { return data + "/locks"; }
  [[nodiscard]] std::string run_of(std::string_view id) const { return run + "/" + std::string(id); }
  [[nodiscard]] std::string runtime_root() const { return run + "/oci"; }  ///< --root of the OCI runtime
  [[nodiscard]] std::string seccomp_cache() const { return cache + "/seccomp"; }
  /// Blobs on their way in; below data because they are published by rename, which cannot cross file systems.
  [[nodiscard]] std::string partial_downloads() const { return data + "/partial"; }
  [[nodiscard]] std::string image_records() const { return data + "/images"; }
  [[nodiscard]] std::string image_record(std::string_view manifest_hex) const {
    return image_records() + "/" + std::string(manifest_hex) + ".json";
  }
};

/// The layout of the calling user: --root / --runroot where given, else XDG_DATA_HOME, XDG_RUNTIME_DIR and
/// XDG_CACHE_HOME, else their defaults below HOME. A run directory that is not the caller's own and 0700
/// (su, sudo, cron) is replaced by a private one under /tmp/kelp-run-UID, or below data keyed by boot id.
///
/// throws  UsageError when a directory cannot be determined (no HOME) with a hint
Layout resolve(const std::optional<std::string>& root, const std::optional<std::string>& run_root);

/// Makes the directories (0700) and the version file of the store where missing; cheap when they exist.
/// throws  Error when the store was written by a newer kelp (refused, never rewritten)
void prepare(const Layout& layout);

/// Whether there is a store; a store of a newer kelp is refused, whatever the command.
/// throws  Error as prepare()
bool check_version(const Layout& layout);

/// First 16 bytes of the boot id and of the machine id as hex, read once.
const std::string& boot_id();
const std::string& machine_id();

}  // namespace kelp::store
