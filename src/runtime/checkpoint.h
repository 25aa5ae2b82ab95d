#pragma once

#include <string>
#include <vector>

#include "runtime/create.h"

namespace kelp::runtime {

/// How criu is to treat what leaves the container; the words are its own.
struct CriuOptions {
  std::string program;  ///< "" = criu in PATH
  std::string image_dir = "checkpoint", work_dir, parent_dir, manage_cgroups;
  bool tcp_established = false, ext_unix_sk = false, shell_job = false, file_locks = false;
  bool tcp_skip_in_flight = false, lazy_pages = false, auto_dedup = false;
  // restore only
  std::string lsm_profile, lsm_mount_context;  ///< "" = as they were
  // checkpoint only
  bool leave_running = false, pre_dump = false;
  std::string page_server;  ///< "ADDRESS:PORT" that the memory goes to
  int status_fd = -1;       ///< criu writes a byte there when it serves pages
};

/// `kelp-oci checkpoint`: the processes go to files in image_dir, and end unless leave_running.
void checkpoint_container(const std::string& root, const std::string& id, const CriuOptions& criu);
/// `kelp-oci restore`: a container of the bundle goes on where the checkpoint was made. Returns the exit code of its
/// first process; 0 at once with options.detach.
int restore_container(const CreateOptions& options, const CriuOptions& criu);

}  // namespace kelp::runtime
