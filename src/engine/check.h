#pragma once

#include <string>
#include <vector>

namespace kelp::engine {

struct Context;

/// One thing in the store that is not as it should be.
struct Damage {
  enum class Kind { blob, image, layer, container } kind;
  std::string subject;  ///< digest, image id, "chain/map", container id
  std::string what;     ///< a line for people
};
/// Looks at images, layers and containers. digests: reads every blob and compares it with its name, too.
std::vector<Damage> check_store(Context& context, bool digests);

/// Removes what is damaged: a blob with the images that need it, a layer (it is made again from its blob). Containers
/// only by force; false: left alone.
bool repair(Context& context, const Damage& damage, bool force);

/// Removes containers whose record cannot be read, as repair() does by force. Returns their ids.
std::vector<std::string> remove_remainders(Context& context);

}  // namespace kelp::engine
