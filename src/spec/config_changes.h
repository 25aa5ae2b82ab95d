#pragma once

#include <string>
#include <string_view>

#include "spec/image_docs.h"

namespace kelp::spec {

/// Applies one Containerfile instruction, as `commit --change` and `import --change` take them, to an image's defaults:
/// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR.
/// "CMD /bin/sh", "CMD=/bin/sh" and `CMD ["/bin/sh"]` are all accepted.
/// throws  UsageError naming the instruction and what is wrong
void apply_change(ImageRunConfig& config, std::string_view change);

}  // namespace kelp::spec
