#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include "store/container_record.h"
#include "store/image_lists.h"
#include "store/images.h"
#include "store/volumes.h"

namespace kelp::engine {

struct Context;

using OrderedJson = nlohmann::ordered_json;

/// Bytes of a container on disk.
struct ContainerSize {
  std::uint64_t writable = 0;  ///< of its own upper directory
  std::uint64_t root = 0;      ///< with the image
};
/// Walks the upper directory as uid 0 of S, since it may hold files of other ids.
ContainerSize container_size(Context& context, const store::ContainerRecord& record);

/// Everything about one container with podman's keys; reads files only (with `size`, one process in S besides).
/// A key that would need something that kelp does not have is left out rather than filled with a guess.
OrderedJson inspect_container(Context& context, const store::ContainerRecord& record, bool size);
/// Of what is no image: its manifest, as far as it has anything to say.
OrderedJson inspect_artifact(const store::ImageList& artifact);
OrderedJson inspect_image(Context& context, const store::ImageRecord& image);
OrderedJson inspect_volume(Context& context, const store::VolumeRecord& volume);

/// What the host offers and where things are kept, with podman's keys.
OrderedJson host_info(Context& context);
/// Go's name of this machine's architecture: "amd64".
std::string host_architecture();
/// The same tree with the names that Go templates use: host.ociRuntime → Host.OCIRuntime.
OrderedJson exported_names(const OrderedJson& facts);

/// The command line that the container runs: entrypoint and command over those of its image.
store::Strings shown_command(const store::ContainerRecord& record);
/// Labels of the image, those of the container over them.
store::StringMap shown_labels(const store::ContainerRecord& record);
/// "slirp4netns", "host", "none", "container", "ns".
std::string network_mode_name(const store::ContainerRecord& record);

}  // namespace kelp::engine
