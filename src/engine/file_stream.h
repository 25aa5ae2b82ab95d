#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "sys/idmap.h"

namespace kelp::engine {

/// A file tree as a stream between two processes of kelp that see different mounts and ids. Sender and receiver are the
/// same program of the same run, so the format carries no version; the receiver still believes no name: each is one
/// path component, used below the directory that the receiver itself opened.
///
///     record = kind, metadata, name, text, then for files blocks {length, bytes}… ended by length 0
///     T top (the source itself)  D directory, then its entries, then U up  F file  H another name of an earlier file
///     L link  P fifo  X error  E end
///
/// The text of an F with several names is a number of its own, that of an H is such a number.

struct SendOptions {
  std::optional<std::uint32_t> uid, gid;  ///< told of everything; nullopt: the files' own
};
/// root_fd  -1: an ordinary path of this process; else a root that the path is resolved in, links included.
/// Errors go into the stream.
void send_files(int out_fd, int root_fd, const std::string& path, const SendOptions& options = {}) noexcept;

/// An error in place of a stream.
void send_error(int out_fd, const std::string& text) noexcept;

struct ReceiveOptions {
  std::optional<std::uint32_t> uid, gid;  ///< given to everything; nullopt: keep_owners decides
  bool keep_owners = false;               ///< else what is made belongs to the receiving process
  const sys::IdMaps* outside = nullptr;   ///< keep_owners: the sender's ids are outside of these maps
  bool overwrite = false;                 ///< a directory may replace a file and the other way round
};
/// Puts the tree at `path` as cp does: into an existing directory, else under that name (whose parent must exist).
/// throws Error with the sender's text, or the receiver's own
void receive_files(int in_fd, int root_fd, const std::string& path, const ReceiveOptions& options);

}  // namespace kelp::engine
