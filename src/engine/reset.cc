#include "engine/reset.h"

#include "base/error.h"
#include "base/log.h"
#include "engine/context.h"
#include "engine/remove.h"
#include "engine/session.h"
#include "store/containers.h"
#include "sys/xattr_tree.h"

namespace kelp::engine {

void reset_store(Context& context) {
  RemoveOptions everything;
  everything.force = everything.volumes = everything.depend = everything.time_given = true;
  everything.timeout = 0;
  for (const auto& record : store::list(context.layout)) {
    if (!store::find(context.layout, record.id)) continue;  // went with one that it depended on
    remove_container(context, record, everything);
  }
  const auto& layout = context.layout;
  // What belongs to the caller goes without a namespace; the rest needs one. The namespace's own files go last.
  const auto remove_data = [&] {
    for (const auto& path : {layout.data, layout.cache}) sys::remove_tree(path);
  };
  try {
    remove_data();
  } catch (const Error& error) {
    log::debug("{}", error.message());
    in_userns(context, remove_data);
  }
  sys::remove_tree(layout.run);
}

}  // namespace kelp::engine
