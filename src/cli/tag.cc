#include "base/digest_name.h"
#include "base/error.h"
#include "cli/command_actions.h"
#include "engine/events.h"
#include "spec/image_name.h"
#include "store/image_lists.h"
#include "store/images.h"

namespace kelp::cli {

Action define_tag(OptionSet& options) {
  options.arguments("IMAGE NAME...", 2, -1, Complete::image);
  return [](Invocation& invocation) {
    const store::Layout& layout = invocation.context.layout;
    const std::string& known = invocation.arguments[0];
    auto image = store::find_image(layout, known);
    const auto list = image ? std::nullopt : store::find_list(layout, known);
    if (!image && !list) image = store::require_image(layout, known);  // for what it says
    for (size_t i = 1; i < invocation.arguments.size(); ++i) {
      const auto name = spec::parse_local_name(invocation.arguments[i]);
      if (!name.digest.empty()) throw_usage("{}: a tag cannot hold a digest", invocation.arguments[i]);
      const std::string full = name.tagged().full();
      if (list) {
        store::put_list(layout, full,
                        {.media_type = list->media_type, .digest = list->digest, .size = list->text.size()});
      } else {
        store::tag_image(layout, *image, full);
      }
      engine::emit_event(invocation.context, "image", "tag",
                         list ? std::string(DigestName::require(list->digest).hex()) : image->id, full);
    }
    return 0;
  };
}

Action define_untag(OptionSet& options) {
  options.arguments("IMAGE [NAME...]", 1, -1, Complete::image);
  return [](Invocation& invocation) {
    const auto image = store::require_image(invocation.context.layout, invocation.arguments[0]);
    Strings names;
    for (size_t i = 1; i < invocation.arguments.size(); ++i) {
      names.push_back(spec::parse_local_name(invocation.arguments[i]).tagged().full());
    }
    store::untag_image(invocation.context.layout, image, names);
    for (const auto& name : names.empty() ? image.names : names) {
      engine::emit_event(invocation.context, "image", "untag", image.id, name);
    }
    return 0;
  };
}

}  // namespace kelp::cli
