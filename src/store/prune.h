#pragma once

#include <cstdint>
#include <ctime>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/layout.h"

namespace kelp::store {

/// What a sweep took away.
struct SweepResult {
  std::vector<std::string> blobs;   ///< digests
  std::vector<std::string> layers;  ///< "<chain>/<map>"
  std::uint64_t bytes = 0;          ///< of blobs, and of layers' tars
};

/// Mark and sweep: blobs that no image in index.json reaches and layers that neither an image nor a container
/// record uses are moved to the trash. Decided and renamed under the store's exclusive lock (it waits for
/// StoreUse holders), deleted outside of it.
/// Takes stale partial downloads (older than a week) along.
/// unused_since  unpacked layers that no container, and only images that none was made from since then, use go too:
/// they
///               come back from their blobs (those whose blobs were given up stay)
SweepResult sweep_images(const Layout& layout, std::optional<std::time_t> unused_since = std::nullopt);
/// Blobs that a manifest or an index reaches, itself included; what is missing or damaged reaches nothing.
std::set<std::string> reached_blobs(const Layout& layout, const std::string& digest);
/// The same when nobody holds StoreUse; nullopt at once when a pull is under way, or a container being created (a later
/// sweep finds what is left).
std::optional<SweepResult> try_sweep_images(const Layout& layout);

/// After a failed pull or load, inside S: takes away what it left, unless somebody else is using the store right now (a
/// later sweep finds it). Never throws: the failure itself is what matters.
void sweep_if_idle(const Layout& layout) noexcept;

/// Empties trash/, takes away dead temporary directories of layers and what killed writers left of blobs. Layers hold
/// files of subordinate ids: run it inside S (as the caller on the host it removes what it can and leaves the rest).
/// Another process at it: returns at once.
void empty_trash(const Layout& layout);

/// Renames a directory or file of the store into trash/ under a fresh name; needs no space. Gone already: false.
bool move_to_trash(const Layout& layout, const std::string& path);

}  // namespace kelp::store
