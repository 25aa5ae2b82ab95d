#pragma once

#include <string>
#include <string_view>

namespace kelp {

/// Absolute path of one of kelp's own programs ("kelp-oci", "kelp-monitor", "kelp-image", "kelp"): KELP_LIBEXEC in the
/// environment, else beside the running program (build tree), else ../libexec/kelp and ../bin of it (any prefix),
/// else the compiled-in place. throws Error naming the places tried.
std::string own_program(std::string_view name);

/// Absolute path of a file of kelp's data directory ("hello.tar", "seccomp.json"), found the same way
/// (KELP_DATA, ../share/kelp of the running program, build tree, compiled-in).
std::string own_data(std::string_view name);

/// First executable `name` in PATH, then in /usr/sbin:/usr/bin:/sbin:/bin; "" when there is none.
std::string find_in_path(std::string_view name);

}  // namespace kelp
