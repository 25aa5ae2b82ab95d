#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "image/http.h"
#include "image/policy.h"
#include "image/progress.h"
#include "image/registry.h"
#include "store/layers.h"
#include "store/layout.h"

namespace kelp::image {

/// Something of the store that is not as it should be.
struct StoreProblem {
  std::string kind;     ///< "blob", "layer", "image", "record"
  std::string subject;  ///< digest, "<chain>/<map>", or name
  std::string what;     ///< "its content is sha256:…", "is missing", …
  bool repaired = false;
  std::string why_not;  ///< repair was wanted and did not help
};

struct StoreReport {
  std::vector<StoreProblem> problems;
  std::vector<std::string> orphans;                            ///< nothing needs them; a gc takes them away. No damage
  std::uint64_t blobs = 0, layers = 0, images = 0, bytes = 0;  ///< looked at
};

struct VerifyOptions {
  bool repair = false;
  bool layers = true;  ///< compare unpacked trees with their blobs, file by file
  RegistryOptions registry;
};

/// Looks at all of the store: every blob against its digest, every entry of index.json for what it needs, every
/// unpacked layer, file by file, against the tar in its blob. Runs inside S.
///
/// repair  a damaged or missing blob is fetched again from where its image came from; a damaged layer is unpacked again
///         from its blob; a missing record is made again. An image that cannot be brought back is left as it is and
///         stays reported: nothing is thrown away that may still be of use.
/// cost    reads everything; unpacks one layer at a time beside the store
StoreReport verify_store(const store::Layout& layout, Http& http, const RegistryPolicy& policy,
                         const VerifyOptions& options, Progress& progress);

}  // namespace kelp::image
