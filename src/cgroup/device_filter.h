#pragma once

#include <linux/bpf.h>

#include <string>
#include <vector>

#include "spec/runtime_config.h"

/// linux.resources.devices: cgroup v2 has no files for it, but asks a BPF program about each mknod and open of a
/// device.
namespace kelp::cgroup {

/// The program for `rules`, of which the last that matches decides, for each kind of access by itself; what none
/// matches is denied. The default devices (null, zero, full, random, urandom, tty, console, ptmx, pts) and mknod of any
/// node are always allowed, as in the other runtimes. throws  Error "linux.resources.devices[2].access: …"
std::vector<bpf_insn> compile_device_filter(const std::vector<spec::DeviceRule>& rules);

/// Puts the program on the group at `path`, in place of what was there. No rules: nothing is done. In a user namespace
/// the kernel refuses programs, and device nodes as well, so nothing is lost there; the host's root gets an Error.
void restrict_devices(const std::string& path, const std::vector<spec::DeviceRule>& rules);

}  // namespace kelp::cgroup
