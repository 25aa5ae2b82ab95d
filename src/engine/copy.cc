#include "engine/copy.h"

#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <functional>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "engine/file_stream.h"
#include "engine/images.h"
#include "engine/prepare.h"
#include "engine/session.h"
#include "engine/tar_writer.h"
#include "engine/user_namespace.h"
#include "engine/userns.h"
#include "engine/users.h"
#include "store/containers.h"
#include "store/layers.h"
#include "sys/clone.h"
#include "sys/safe_path.h"

// Two processes and a pipe: the side inside a container sees its mounts and ids and nothing of the host, the other side
// the host as the caller. No path crosses from one to the other, only names, one component at a time.
namespace kelp::engine {

namespace {

/// Of whom the process of a container is, by the container's ids.
ResolvedUser user_of(Context& context, const store::ContainerRecord& record) {
  const LayeredRoot root(root_directories(context, record, true));
  return resolve_user(effective_user(record), {}, root.read("/etc/passwd").value_or(""),
                      root.read("/etc/group").value_or(""));
}

/// What leaves a container with its owners is its user's, by the ids that S has: as podman's tars have it.
SendOptions send_options(Context& context, const CopyRequest& request) {
  SendOptions options;
  const bool told = request.to ? !request.archive : request.target == "-";
  if (!request.from || !told) return options;
  const store::ContainerRecord& record = *request.from;
  const ResolvedUser user = record.map_key == "single" ? ResolvedUser{} : user_of(context, record);
  const store::IdMapping map = layers_map(record);
  options.uid = map.uid(user.uid).value_or(0);
  options.gid = map.gid(user.gid).value_or(0);
  return options;
}

ReceiveOptions receive_options(Context& context, const CopyRequest& request) {
  ReceiveOptions options;
  options.overwrite = request.overwrite;
  if (!request.to) return options;
  const store::ContainerRecord& record = *request.to;
  if (record.map_key == "single") return options;
  if (!request.archive) {
    options.keep_owners = true;
    if (!request.from) options.outside = &wanted_maps(context);  // a file of the caller is root's inside
    return options;
  }
  const ResolvedUser user = user_of(context, record);
  options.uid = user.uid;
  options.gid = user.gid;
  return options;
}

/// A path inside starts at the container's working directory, as podman has it: "/".
std::string inside(const std::string& path) { return starts_with(path, "/") ? path : "/" + path; }

/// Volumes are part of what is copied, whether the container runs or not.
void in_files_of(Context& context, const store::ContainerRecord& record, const std::function<void(int)>& body) {
  in_container(context, record, body, true);
}

/// cp CONTAINER:PATH -: one tree, named after its last component; "DIR/." gives what is in it.
void copy_out_archive(Context& context, const CopyRequest& request) {
  const SendOptions owner = send_options(context, request);
  in_files_of(context, *request.from, [&](int root_fd) {
    const std::string path = inside(request.source), clean = sys::clean_path(path);
    TarWriter writer(STDOUT_FILENO);
    writer.give_all_to(owner.uid.value_or(0), owner.gid.value_or(0));
    if (clean == "/" || ends_with(path, "/.")) {
      writer.add_contents(sys::open_in_root(root_fd, clean, O_RDONLY | O_DIRECTORY).get(), "", false);
    } else {
      const size_t slash = clean.rfind('/');
      const std::string name = clean.substr(slash + 1);
      const Fd parent = sys::open_in_root(root_fd, slash == 0 ? "/" : clean.substr(0, slash), O_RDONLY | O_DIRECTORY);
      writer.add(parent.get(), name.c_str(), name, false);
    }
    writer.finish();
  });
}

/// cp - CONTAINER:DIR: the archive's files below an existing directory.
void copy_in_archive(Context& context, const CopyRequest& request) {
  const ReceiveOptions owners = receive_options(context, request);
  with_container_root(context, *request.to, true, [&](int root_fd) {
    const Fd directory = sys::try_open_in_root(root_fd, inside(request.target), O_RDONLY | O_DIRECTORY);
    if (!directory && errno == ENOTDIR)
      throw_usage("cp: {} is no directory: an archive needs one", kelp::quoted(request.target));
    if (!directory) throw_errno("cp: {} in container {}", request.target, request.to->name);
    const store::IdMapping map = layers_map(*request.to);
    unpack_archive(context, {.directory_fd = directory.get(), .map = map, .uid = owners.uid, .gid = owners.gid},
                   STDIN_FILENO);
  });
}

/// Both ends of one stream, the sender in a child.
void transfer(const std::function<void(int)>& send, const std::function<void(int)>& receive) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) < 0) throw_errno("make a pipe");
  Fd in(ends[0]);
  Fd out(ends[1]);
  ::fcntl(out.get(), F_SETPIPE_SZ, 1 << 20);
  // The receiver's failure reaches the sender as EPIPE, not as a signal.
  const auto old = std::signal(SIGPIPE, SIG_IGN);
  Rollback restore;
  restore.add([old] { std::signal(SIGPIPE, old); });
  sys::Child sender = sys::clone_child(0, [&] {
    in.reset();
    try {
      send(out.get());
    } catch (const Error& error) {
      send_error(out.get(), error.what());
    }
    return 0;
  });
  out.reset();
  receive(in.get());
  in.reset();
  sender.wait();
}

}  // namespace

void copy_files(Context& context, const CopyRequest& request) {
  if (!request.from && !request.to) throw_usage("cp: one of the two paths must be CONTAINER:PATH");
  if (request.source.empty() || request.target.empty()) throw_usage("cp: an empty path");
  if (request.source == "-" && !request.from) return copy_in_archive(context, request);
  if (request.target == "-" && !request.to) return copy_out_archive(context, request);
  const ReceiveOptions options = receive_options(context, request);
  const SendOptions told = send_options(context, request);
  if (request.from && request.to && request.from->id == request.to->id) {
    in_files_of(context, *request.from, [&](int root_fd) {
      transfer([&](int out) { send_files(out, root_fd, inside(request.source), told); },
               [&](int in) { receive_files(in, root_fd, inside(request.target), options); });
    });
    return;
  }
  transfer(
      [&](int out) {
        if (!request.from) return send_files(out, -1, request.source);
        in_files_of(context, *request.from,
                    [&](int root_fd) { send_files(out, root_fd, inside(request.source), told); });
      },
      [&](int in) {
        if (!request.to) return receive_files(in, -1, request.target, options);
        in_files_of(context, *request.to,
                    [&](int root_fd) { receive_files(in, root_fd, inside(request.target), options); });
      });
}

}  // namespace kelp::engine
