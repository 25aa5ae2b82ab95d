#pragma once

namespace kelp::engine {

struct Context;

/// Ends all containers and removes everything that kelp keeps for this user: containers, images, volumes, secrets,
/// state and cache, files of subordinate ids too.
void reset_store(Context& context);

}  // namespace kelp::engine
