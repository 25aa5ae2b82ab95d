#pragma once

#include "monitor/plan.h"

namespace kelp::monitor {

/// --rm, before the exit is told: container directory and its anonymous volumes go to the trash by rename and the names
/// are released, so whoever hears of the exit can use the name again. The container's lock is held.
void move_to_trash(const Plan& plan) noexcept;

/// The rest, after the exit was told: overlay, run directory, what is in the trash, the group and the lock file. Each
/// failure is logged; what is left of the trash the next kelp command removes.
void clean_up(const Plan& plan) noexcept;

/// After a start that failed: a container that has never run is "created" again. (The overlay's work directory is what
/// tells that one has run whose monitor was killed.)
void forget_first_start(const Plan& plan) noexcept;

}  // namespace kelp::monitor
