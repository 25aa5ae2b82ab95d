#pragma once

#include <sys/types.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

namespace kelp::sys {

/// Deletes a file or a whole tree, by descriptors, never following links, opening directories of mode 000 (overlay's
/// work directory) as their owner. Nothing there is no error. Entries that cannot be deleted (owned by ids of another
/// user namespace) and mount points are reported by the first SysError after the rest has been deleted; what is mounted
/// is not touched.
void remove_tree_at(int dirfd, const char* name);
void remove_tree(const std::string& path);

/// The mark of an opaque directory where there are no extended attributes (such a layer is copied, never mounted).
inline constexpr const char* kOpaqueFile = ".wh..wh..opq";

/// What overlayfs (userxattr) keeps in a layer beside ordinary files.
/// whiteout: character device 0:0, or (where the layer lies on an overlay, which takes none) an empty file with
/// user.overlay.whiteout. source: kernel, overlayfs.rst
bool is_whiteout_at(int dirfd, const char* name);
bool is_whiteout(int fd);  ///< fd may be O_PATH
void make_whiteout_at(int dirfd, const char* name);
bool is_opaque(int dirfd);
void make_opaque(int dirfd);

struct CopyOptions {
  bool owners = true;  ///< keep uid and gid (EPERM is an error); false: files belong to the caller
  bool xattrs = true;  ///< all but user.overlay.*, trusted.overlay.* and security.selinux
  bool times = true;
  std::optional<uid_t> uid;  ///< given to everything instead of the source's
  std::optional<gid_t> gid;
  std::function<uid_t(uid_t)> map_uid;  ///< applied to the source's owner when set
  std::function<gid_t(gid_t)> map_gid;
};

/// Copies the contents of one directory into another, existing one: modes, owners, times, xattrs, hard links, holes,
/// devices, fifos; sockets are left out. Data by reflink or copy_file_range where the file system can. Existing
/// directories are merged, other existing entries are replaced. Nothing outside the two trees is touched.
void copy_tree(int from_dirfd, int to_dirfd, const CopyOptions& options = {});

/// Copies one entry (file, link, directory with its contents) to to_dirfd/to_name.
void copy_entry(int from_dirfd, const char* name, int to_dirfd, const char* to_name, const CopyOptions& options = {});

/// Owner, mode, times and xattrs of one open directory or file given to another.
void copy_attributes(int from_fd, int to_fd, const CopyOptions& options = {});

/// Gives every entry of a tree (the top included, links themselves) an attribute, where it has another value.
void set_xattr_of_tree(const std::string& path, const char* attribute, const std::string& value);

/// Changes owners of a whole tree (the entry itself included) where they differ; links are not followed.
void chown_tree_at(int dirfd, const char* name, uid_t uid, gid_t gid);

/// Bytes and entries below a directory (hard links counted once).
struct TreeSize {
  std::uint64_t bytes = 0, entries = 0;
};
TreeSize tree_size(const std::string& path);

}  // namespace kelp::sys
