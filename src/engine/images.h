#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace kelp::store {
struct ImageRecord;
struct IdMapping;
}  // namespace kelp::store

namespace kelp::engine {

struct Context;

/// One thing that happened in a transfer, as kelp-image tells it (one JSON line on its progress descriptor).
///
/// kind     "status": `text` is a line for people ("Trying to pull docker.io/library/nginx:latest...")
///          "layer":  a layer is known; `total` its compressed bytes, `text` "" or "already exists"
///          "bytes":  `current` of `total` bytes are here
///          "unpack": the bytes are here, the files are being written
///          "done":   the layer is complete
///          "unpacked": the same of one whose bytes were here before
/// id       digest of the blob ("sha256:…"), "" for status
struct ProgressEvent {
  std::string kind, id, text;
  std::uint64_t current = 0, total = 0;
};
/// May be empty: nobody looks.
using ProgressFn = std::function<void(const ProgressEvent&)>;

struct PullOptions {
  std::string platform;  ///< os/arch[/variant], "" = the host's
  std::string authfile;  ///< "" = the usual places
  std::string creds;     ///< "user[:password]", "" = none
  std::string cert_dir;  ///< "" = certs.d
  std::optional<bool> tls_verify;
  std::string policy = "missing";  ///< always, missing, never, newer
  bool quiet = false;
  bool all_tags = false;
  bool artifacts = false;         ///< what is no image is kept, too: its record has a digest and no id
  std::optional<unsigned> retry;  ///< attempts after the first
  std::string retry_delay;        ///< "" = exponential; a duration otherwise
};

/// "Give me this image": the local store first, then (by policy) a registry; a name that the store does not know and
/// that is `hello` comes from the image that is installed with kelp. No process is started and no lock is taken when
/// the image is there.
///
/// name     name[:tag][@digest], short name, or id (prefix)
/// throws   Error, one line with the name and the reason; UsageError for a malformed name or policy
store::ImageRecord ensure_image(Context& context, const std::string& name, const PullOptions& options,
                                const ProgressFn& progress = {});

/// Makes the unpacked layers of the image for this id map where they are missing or cannot be trusted any more.
/// after    every layer of the image is a directory below Layout::layers()
void ensure_layers(Context& context, const store::ImageRecord& image, const store::IdMapping& map,
                   const ProgressFn& progress = {});

/// `kelp pull`: asks the registry unless the policy says otherwise; several records with all_tags.
std::vector<store::ImageRecord> pull_image(Context& context, const std::string& name, const PullOptions& options,
                                           const ProgressFn& progress = {});

struct TakenImages {
  std::string root;                ///< directory of the other store
  std::vector<std::string> names;  ///< full names of what is here now
  std::vector<std::string> failures;
  size_t nameless = 0;  ///< images without a name, which were left there
};
/// Copies all named images of another engine's store; one that cannot be read does not keep the others from coming.
///
/// owner  "podman" or "docker";  store  its directory, "" = the caller's own
TakenImages take_over_images(Context& context, const std::string& owner, const std::string& store,
                             const ProgressFn& progress = {});

/// `kelp load`. file "" or "-" = standard input. Returns the names (or ids, where there is no name) loaded.
std::vector<std::string> load_images(Context& context, const std::string& file, const ProgressFn& progress = {});

struct SaveOptions {
  std::string format = "docker-archive";  ///< docker-archive, oci-archive, oci-dir, docker-dir
  std::string output;                     ///< "" = standard output (archives only)
  bool compress = false;
  bool multi_image_archive = false;
  std::string compression_format;  ///< gzip or zstd: pack the layers so (oci-archive, oci-dir); "" = as they are kept
  std::optional<std::int64_t> compression_level;
};
/// `kelp save`.
void save_images(Context& context, const std::vector<std::string>& names, const SaveOptions& options,
                 const ProgressFn& progress = {});

/// A directory that an archive is unpacked into, by kelp-image inside S.
struct UnpackTarget {
  int directory_fd = -1;
  const store::IdMapping& map;            ///< ids in the archive → ids in S
  std::optional<std::uint32_t> uid, gid;  ///< owner of everything, instead of the archive's
};
/// archive_fd: a tar, compressed or not.
void unpack_archive(Context& context, const UnpackTarget& target, int archive_fd);

/// A new image from a container's files (see engine/commit.h).
struct PackRequest {
  const store::IdMapping& map;
  std::string upper;    ///< overlay's upper directory: becomes one layer on top of the base
  int root_fd = -1;     ///< instead: a whole tree
  bool squash = false;  ///< the base gives its configuration only
  std::string base;     ///< manifest digest, "" = none
  std::string config;   ///< JSON of the image's run config
  std::string author, message, created, created_by, name;
  std::string format = "oci";
  std::vector<std::string> owners_files;
};
/// returns the id of the image
std::string pack_image(Context& context, const PackRequest& request, const ProgressFn& progress = {});

/// Reads every blob of the store; digests of those whose content has another one.
std::vector<std::string> damaged_blobs(Context& context);

struct ImportOptions {
  std::string source;     ///< tar file, "-" = standard input
  std::string reference;  ///< "" = untagged
  std::vector<std::string> changes;
  std::string message, os, arch, variant;
};
/// `kelp import`: the id of the new image.
std::string import_image(Context& context, const ImportOptions& options, const ProgressFn& progress = {});

/// What a registry said when it was greeted.
struct RegistryAnswer {
  std::string name;           ///< "docker.io"
  std::string text;           ///< "https, asks for a login"
  std::string problem, hint;  ///< "" = reachable
};
/// Greets the named registries, without any those that short names are looked for in (registries.conf).
std::vector<RegistryAnswer> ask_registries(Context& context, const std::vector<std::string>& names);

}  // namespace kelp::engine
