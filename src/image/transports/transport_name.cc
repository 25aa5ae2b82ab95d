#include "image/transports/transport_name.h"

#include "base/error.h"
#include "base/text.h"

namespace kelp::image {

namespace {

constexpr std::string_view kFiles[] = {"oci-archive", "docker-archive", "oci", "dir"};
constexpr std::string_view kForeign[] = {"containers-storage", "docker-daemon", "ostree", "sif", "tarball"};

bool has_prefix(std::string_view text, std::string_view transport) {
  return starts_with(text, transport) && text.size() > transport.size() && text[transport.size()] == ':';
}

}  // namespace

bool names_local_transport(std::string_view text) {
  for (const std::string_view transport : kFiles) {
    if (has_prefix(text, transport)) return true;
  }
  return false;
}

TransportName parse_transport(std::string_view text) {
  for (const std::string_view transport : kForeign) {
    if (has_prefix(text, transport)) {
      throw UsageError(fmt::format("{}: images are not kept there by kelp", quoted(text)))
          .with_hint("docker://, oci:, oci-archive:, docker-archive: and dir: are understood");
    }
  }
  TransportName name;
  for (const std::string_view transport : kFiles) {
    if (!has_prefix(text, transport)) continue;
    const std::string_view rest = text.substr(transport.size() + 1);
    name.transport = transport;
    const size_t colon = transport == "dir" ? std::string_view::npos : rest.find(':');
    name.path = rest.substr(0, colon);
    if (colon != std::string_view::npos) name.reference = rest.substr(colon + 1);
    if (name.path.empty()) throw_usage("{}: the path is missing", quoted(text));
    return name;
  }
  name.path = starts_with(text, "docker://") ? text.substr(9) : text;
  return name;
}

}  // namespace kelp::image
