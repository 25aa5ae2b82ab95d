#pragma once

namespace kelp::runtime {

/// Keeps a container from writing to our own program through /proc/PID/exe (CVE-2019-5736): unless it is out of reach
/// already, this program is executed again from a place that cannot be written.
///
///     read-only mount (kelp's session makes one)      nothing to do
///     sealed memory file                              nothing to do
///     owned by an id that no container of ours has,
///     writable by its owner alone                     nothing to do
///     we may mount                                    exec through a detached, read-only clone of its mount
///     else                                            exec from a sealed copy in memory
///
/// Call it first, with argv as it came; returns only when nothing was to be done.
void seal_self(char** argv);

}  // namespace kelp::runtime
