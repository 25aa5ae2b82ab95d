#pragma once

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "store/container_record.h"
#include "store/layout.h"

namespace kelp::store {

/// volumes/<name>/volume.json; the data lies beside it in _data. Files in it carry ids of S.
struct VolumeRecord {
  static constexpr int kSchema = 1;
  std::string name;
  std::string driver = "local";
  StringMap labels, options;
  std::chrono::system_clock::time_point created;
  bool anonymous = false;
  std::optional<unsigned> uid, gid;  ///< owner asked for (o=uid=…), ids of S
  bool needs_copy_up = true;         ///< until the first container that uses it filled it from its image
  std::string mountpoint;            ///< derived: the _data directory; a bind volume's device
  std::string machine;
};

struct VolumeRequest {
  std::string name;  ///< "" = anonymous: 64 random hex digits
  std::string driver = "local";
  StringMap labels, options;         ///< options of the local driver: type, device, o
  std::optional<unsigned> uid, gid;  ///< owner
  bool anonymous = false;
  bool ignore_if_exists = false;
  std::optional<std::chrono::system_clock::time_point> created;  ///< nullopt = now
  /// Puts contents into the new _data before anybody can see the volume; an error of it leaves no volume.
  std::function<void(const std::string& data)> fill;
};
/// throws UsageError: bad name, exists, unknown driver or option
VolumeRecord create_volume(const Layout& layout, const VolumeRequest& request);
/// By full name, or a unique prefix when `prefix`.
std::optional<VolumeRecord> find_volume(const Layout& layout, std::string_view name, bool prefix = false);
VolumeRecord get_volume(const Layout& layout, std::string_view name);
std::vector<VolumeRecord> list_volumes(const Layout& layout);
Strings volume_names(const Layout& layout);
/// Gives a record to each directory below volumes/ that has data and none (a copy from elsewhere); their names.
Strings adopt_volumes(const Layout& layout);
void update_volume(const Layout& layout, const VolumeRecord& volume);
/// Ids of the containers that mention the volume.
Strings volume_users(const Layout& layout, std::string_view name);
Strings volume_users(const std::vector<ContainerRecord>& containers, std::string_view name);
/// Renames the volume into trash/; users are checked before. throws UsageError "volume is being used by …"
void remove_volume(const Layout& layout, const VolumeRecord& volume, bool ignore_users = false);

}  // namespace kelp::store
