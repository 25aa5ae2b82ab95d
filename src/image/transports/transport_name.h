#pragma once

#include <string>
#include <string_view>

namespace kelp::image {

/// "oci-archive:/tmp/a.tar:latest" taken apart. The default is a registry.
struct TransportName {
  std::string transport = "docker";  ///< docker, oci, oci-archive, docker-archive, dir
  std::string path;                  ///< file or directory; docker: the image's name
  std::string reference;             ///< after the path, "" = none
};

/// throws  UsageError for a transport that is known elsewhere but not served here, and for an empty path
/// source  containers-transports(5)
TransportName parse_transport(std::string_view text);

/// true when the text begins with the name of a transport that is not a registry.
bool names_local_transport(std::string_view text);

}  // namespace kelp::image
