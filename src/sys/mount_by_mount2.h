#pragma once

#include <cstdint>
#include <string>

#include "sys/mount_api.h"

/// What mount_api.h offers, made with mount(2) and MS_MOVE alone; chosen there, see allow_mounts_by_mount2(). A MountFd
/// of these is an O_PATH descriptor of the root of a mount that is attached to its waiting place.
namespace kelp::sys {

MountFd bind_by_mount2(int dirfd, const char* path, bool recursive, bool no_follow);
MountFd fs_by_mount2(const char* fstype, const FsOptions& options, unsigned attrs);
/// The mount that covers `path`.
MountFd mount_at(const std::string& path);
void move_by_mount2(int mount_fd, int dirfd, const char* path);
/// throws  Error where `recursive` would have to reach mounts that no path leads to
void set_attrs_by_mount2(int fd, const char* path, std::uint64_t set, std::uint64_t clear, bool recursive,
                         std::uint64_t propagation);

}  // namespace kelp::sys
