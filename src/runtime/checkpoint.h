#pragma once

#include <string>
#include <vector>

#include "runtime/create.h"

namespace kelp::runtime {

/// How criu is to treat what leaves the container; the words are its own.
struct CriuOptions {
  std::string image_dir = "checkpoint", work_dir, parent_dir, manage_cgroups;
  bool tcp_established = false, ext_unix_sk = false, shell_job = false, file_locks = false;
  // checkpoint only
  bool leave_running = false, pre_dump = false;
};

/// `kelp-oci checkpoint`: the processes go to files in image_dir, and end unless leave_running.
void checkpoint_container(const std::string& root, const std::string& id, const CriuOptions& criu);
/// `kelp-oci restore`: a container of the bundle goes on where the checkpoint was made. Returns the exit code of its
/// first process; 0 at once with options.detach.
int restore_container(const CreateOptions& options, const CriuOptions& criu);

}  // namespace kelp::runtime
