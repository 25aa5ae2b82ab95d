#pragma once

#include <string>
#include <vector>

namespace kelp::sys {

/// Names of a directory's entries, sorted, without "." and ".."; with `hidden` also those that begin with a dot. Read
/// as a whole, so the caller may rename and remove them. What is no directory, or not there, has none.
std::vector<std::string> names_in(const std::string& path, bool hidden = false);

/// The names in a directory are on the disk. One that does not exist is no error.
void sync_directory(const std::string& path);

}  // namespace kelp::sys
