#pragma once

#include <string>
#include <vector>

#include "engine/doctor.h"

/// The single checks of doctor.cc. Each returns one finding, or throws an Error, which becomes a finding.
namespace kelp::engine {

// doctor_kernel.cc
Finding check_kernel(Context& context);
Finding check_namespaces(Context& context);
Finding check_own_proc(Context& context);
Finding check_seccomp(Context& context);
Finding check_helpers(Context& context);
Finding check_ranges(Context& context);
Finding check_programs(Context& context);

// doctor_storage.cc
Finding check_overlay(Context& context);
Finding check_fuse(Context& context);
Finding check_storage(Context& context);
Finding check_run_directory(Context& context);

// doctor_services.cc
Finding check_tun(Context& context);
Finding check_slirp(Context& context);
Finding check_pasta(Context& context);
Finding check_cgroups(Context& context);
Finding check_controllers(Context& context);
Finding check_bus(Context& context);
Finding check_linger(Context& context);
std::vector<Finding> check_registries(Context& context, const std::vector<std::string>& asked);

/// "sudo apt-get install uidmap" for this distribution, from the names that Debian, Fedora (SUSE), Arch and Alpine
/// give.
struct PackageNames {
  const char *debian, *fedora, *arch, *alpine;
};
std::string install_command(const PackageNames& names);

}  // namespace kelp::engine
