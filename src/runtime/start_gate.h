#pragma once

#include <string>

#include "base/owned.h"
#include "runtime/link.h"
#include "spec/runtime_state.h"

/// Between `create` and `start` the first process waits at a socket in the state directory. Unlike runc's fifo it ends
/// when whoever watches over the container dies (--die-with-parent), and it tells `start` why exec failed.
namespace kelp::runtime {

/// The listening socket <state dir>/gate, bound through a descriptor since state paths may be longer than sun_path.
Fd make_gate(int state_dir);

/// Child: waits for `start` to connect. The death of the process behind watch_pidfd (-1 = none) ends us.
sys::Link wait_at_gate(Fd listener, int watch_pidfd);

/// Parent (`start`): connects; throws Error when nobody waits there.
ParentLink open_gate(int state_dir);

/// After `go`: serves the first process until it has executed the payload, hands on the seccomp listener's descriptor.
/// seccomp  of the configuration, null = none
/// throws   the child's Error, or that it died
void serve_until_exec(ParentLink& link, const spec::RuntimeState& state, const spec::Seccomp* seccomp);

}  // namespace kelp::runtime
