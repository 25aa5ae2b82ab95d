#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <string>
#include <vector>

#include "engine/images.h"
#include "engine/registries.h"

namespace kelp::engine {

struct VerifyProblem {
  std::string kind, subject, what, why_not;
  bool repaired = false;
};
struct VerifyReport {
  std::vector<VerifyProblem> problems;
  std::vector<std::string> orphans;
  std::uint64_t blobs = 0, layers = 0, images = 0, bytes = 0;
};
/// `kelp store verify`: see image/verify.h.
VerifyReport verify_store(Context& context, bool repair, const RegistryAccess& access, const ProgressFn& progress = {});

struct CollectReport {
  std::uint64_t blobs = 0, layers = 0, bytes = 0;
};
/// `kelp store gc`: all that nothing reaches, what killed pulls and builds left included; waits for transfers under
/// way. With keep-blobs = false, also the blobs that layers can do without.
/// unused_since  also unpacked layers that no container stands on, of images that none was made from since then: they
///               come back from their blobs
CollectReport collect_garbage(Context& context, std::optional<std::time_t> unused_since);

/// Bytes that each kind of thing takes, as `kelp system df` tells.
struct DiskUse {
  std::uint64_t blobs = 0, layers = 0;  ///< layers: the sum of their tars
  std::uint64_t blob_count = 0, layer_count = 0;
  std::vector<std::pair<std::string, std::uint64_t>> containers;  ///< id → its writable layer
  std::vector<std::pair<std::string, std::uint64_t>> volumes;     ///< name → bytes
};
DiskUse disk_use(Context& context);

}  // namespace kelp::engine
