#pragma once

#include <string>
#include <string_view>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// --secret NAME[,type=mount|env][,target=…][,uid=N][,gid=N][,mode=0444]. The secret itself is looked up by create.
/// throws UsageError naming the text
store::SecretRequest parse_secret_option(std::string_view text);

/// Looks the secrets up; throws UsageError when one is not there.
void resolve_secrets(Context& context, store::ContainerConfig& config);
/// The values as files of the container in the making.
void copy_secrets(Context& context, const store::ContainerConfig& config, const std::string& directory);

}  // namespace kelp::engine
