#pragma once

#include <nlohmann/json_fwd.hpp>

#include "store/container_record.h"

namespace kelp::engine {

struct Context;

/// What confines a container, as the kernel has it now for one that runs and as it is going to be for one that does
/// not (then without namespaces and use):
///
///     Name Id Running
///     See    Namespaces [{Type, Own, SharedWith}]
///     Use    Limits, Usage, Pressure
///     Touch  User, Capabilities, NoNewPrivileges, Seccomp, MaskedPaths, ReadonlyPaths, ReadonlyRootfs, WritableMounts,
///            Devices, Ports
///     Deviations  where it is looser than `--hardened`: [{Part, Is, Hardened}]
nlohmann::ordered_json isolation_of(Context& context, const store::ContainerRecord& record);

}  // namespace kelp::engine
