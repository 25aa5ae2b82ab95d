#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "store/layout.h"

namespace kelp::engine {

struct HostFacts;

/// Options that stand before the command's name.
struct GlobalOptions {
  std::optional<std::string> root, run_root;
  std::string runtime;                     ///< "" = kelp-oci; a name in PATH or a path
  std::vector<std::string> runtime_flags;  ///< without the leading "--"
  std::string cgroup_manager;              ///< "" = by the ladder; systemd, cgroupfs
  std::string slirp4netns;                 ///< --network-cmd-path; "" = in PATH
  std::vector<std::string> hooks_dirs;
  std::vector<std::string> cdi_spec_dirs;    ///< empty: the usual ones, see cdi.h
  std::string monitor;                       ///< --conmon; "" = our own kelp-monitor
  std::string storage_driver;                ///< "" = by trying; overlay, vfs (a copy of all layers)
  std::vector<std::string> storage_options;  ///< KEY=VALUE, see storage_choice() in rootfs.h
  std::vector<std::string> modules;          ///< further settings files, later ones win
  bool keep_events = true;                   ///< --events-backend none: they are not written
};

/// What every verb gets first: where things are, and what the host can do. One per process.
struct Context {
  store::Layout layout;
  GlobalOptions global;
  /// Looked up on first use, field by field (see host.h): a verb pays only for what it asks.
  [[nodiscard]] const HostFacts& host() const;

  Context();
  Context(Context&&) noexcept;
  Context& operator=(Context&&) noexcept;
  ~Context();

 private:
  mutable std::unique_ptr<HostFacts> host_;
};

/// Resolves the layout; nothing is made on disk (store::prepare() does, where a verb writes).
Context make_context(const GlobalOptions& options);

}  // namespace kelp::engine
