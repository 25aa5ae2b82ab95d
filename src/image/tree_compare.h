#pragma once

#include <string>

namespace kelp::image {

/// The first difference between two directory trees: names, types, modes, owners, sizes, contents, link targets, device
/// numbers, modification times of files, extended attributes. "" = none. Directories' own times are left out, since
/// unpacking children sets them anew on some file systems.
/// throws SysError naming the path
std::string first_difference(int left_fd, int right_fd);

}  // namespace kelp::image
