#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "spec/image_docs.h"
#include "spec/image_name.h"
#include "store/layout.h"
#include "sys/lock.h"

/// Images: index.json names manifests, and for each manifest a record (images/<manifest hex>.json) keeps what a
/// start needs, so that the command line neither hashes nor reads three documents.
///
///     index.json                       the truth: OCI index; names in org.opencontainers.image.ref.name (full names)
///     images/<manifest hex>.json       record: derived from manifest and config blob, plus chain ids
///     images/names                     plain text copy of the index, valid only for the exact index.json that
///                                      it was made from (inode, size, mtime): lookups parse no JSON index
///
/// Readers take no lock. Writers edit under locks/images and publish by rename.
namespace kelp::store {

struct ImageLayer {
  std::string diff_id;     ///< "sha256:…" of the uncompressed tar
  std::string chain;       ///< hex of the chain id: the name below layers/
  std::string blob;        ///< "sha256:…" of the blob as kept
  std::uint64_t size = 0;  ///< of the blob
  std::string media_type;
};

struct ImageRecord {
  static constexpr int kSchema = 1;
  std::string id;                   ///< hex of the config digest
  std::string digest;               ///< "sha256:…" of the manifest
  std::string list_digest;          ///< of the index it was chosen from, "" = none
  std::vector<std::string> names;   ///< full names "docker.io/library/nginx:latest"; empty = dangling
  std::vector<std::string> repos;   ///< "docker.io/library/nginx": where its digests are known, also without a tag
  std::vector<std::string> former;  ///< names that it has had and has no more, oldest first
  std::string created;              ///< RFC 3339 as in the config
  std::uint64_t size = 0;           ///< bytes: config plus unpacked layer tars where known, else blobs
  spec::Platform platform;
  std::string author;
  spec::ImageRunConfig config;
  std::vector<ImageLayer> layers;  ///< base first
  bool made_here = false;          ///< by import, commit or build: no registry has given these bytes their digests

  /// Chain ids, base first (see layers.h, overlay_lowers).
  [[nodiscard]] std::vector<std::string> chains() const;
  /// "repo@sha256:…" of every repository that it is known under (manifest's and list's digest), as inspect shows it.
  [[nodiscard]] std::vector<std::string> repo_digests() const;
};
/// The names that it has, then those that it has had: podman's "history" of an image's names.
std::vector<std::string> name_history(const ImageRecord& image);

/// By full or short name (see spec::local_candidates), name@digest, digest, full id or id prefix.
/// A name wins over an id prefix. throws UsageError when an id prefix is ambiguous
std::optional<ImageRecord> find_image(const Layout& layout, std::string_view name_or_id);
/// As find_image, throws UsageError "NAME: image not known" with the nearest name as hint.
ImageRecord require_image(const Layout& layout, std::string_view name_or_id);
/// The record of one manifest ("sha256:…").
std::optional<ImageRecord> image_by_manifest(const Layout& layout, std::string_view manifest_digest);
/// One record per image id, newest first.
/// brief  without author, config, layers and the repositories of names, which are most of a record: for tables; one
///        file is read for all
std::vector<ImageRecord> list_images(const Layout& layout, bool brief = false);
/// Every name in the store, for completion: reads one file.
std::vector<std::string> list_image_names(const Layout& layout);
/// A container is made from it now: sweep_images() knows by that which images are long unused. A full or read-only disk
/// is no reason to fail.
void note_use(const Layout& layout, const ImageRecord& image) noexcept;
/// The whole config document (history, author, …) of an image.
spec::ImageConfig read_image_config(const Layout& layout, const ImageRecord& image);
/// The configuration blob as it is, for `inspect`.
std::string read_image_config_text(const Layout& layout, const ImageRecord& image);

struct NewImage {
  spec::Descriptor manifest;        ///< its blob, the config's and the layers' are in the store
  std::vector<std::string> chains;  ///< hex chain ids, base first (image/digest chain_ids())
  std::vector<std::string> names;   ///< full names, moved from the image that has them now; may be empty
  std::vector<std::string> repos;   ///< repositories besides those of the names (pull by digest)
  std::string list_digest;          ///< "" = none
  std::uint64_t unpacked_size = 0;  ///< sum of the uncompressed tars, 0 = unknown
  bool made_here = false;           ///< as ImageRecord's
};
/// Checks the documents against each other, writes the record and the index entry. Hold StoreUse from before the
/// first blob is written until this returns, or a prune may take the blobs away.
ImageRecord add_image(const Layout& layout, const NewImage& image);

/// name: full name. Takes it from the image that has it (which may become dangling).
void tag_image(const Layout& layout, const ImageRecord& image, const std::string& name);
/// names empty = all of them. throws UsageError when the image does not have one of them
void untag_image(const Layout& layout, const ImageRecord& image, const std::vector<std::string>& names);

struct RemovedImage {
  std::vector<std::string> untagged;  ///< names taken away
  std::string deleted;                ///< id, "" when the image is still there under other names
};
/// podman's rules. By name: the name goes; the image goes with its last name. By id: the image goes, but with several
/// names only when forced. Blobs and layers that nothing needs any more are moved to the trash by sweep_images()
/// (prune.h).
///
/// in_use  image ids that containers were made from; such an image is not deleted
/// nullopt: there is no such image (any more)
/// throws  UsageError naming the containers' fact: "image is in use by a container"
std::optional<RemovedImage> remove_image(const Layout& layout, std::string_view name_or_id, bool force,
                                         const std::vector<std::string>& in_use);

/// Held (shared, cheap) by whoever brings blobs or layers in or creates a container: prune waits for it.
class StoreUse {
 public:
  explicit StoreUse(const Layout& layout) : lock_(sys::FileLock::shared(layout.locks() + "/gc")) {}

 private:
  sys::FileLock lock_;
};

}  // namespace kelp::store
