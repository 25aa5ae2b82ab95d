#include "image/tree_writer.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/log.h"
#include "base/text.h"
#include "sys/lock.h"
#include "sys/safe_path.h"
#include "sys/xattr_tree.h"

namespace kelp::image {

namespace {

constexpr size_t kCachedDirectories = 32;
constexpr unsigned kMaxLinks = 40;
/// So many zeros in one piece are left out of a file.
constexpr size_t kHole = 32 * 1024;
constexpr std::uint64_t kNobody = 65534;
constexpr std::string_view kWhiteout = ".wh.";
constexpr std::string_view kOpaque = ".wh..wh..opq";

/// Components of a member's name: "./a//b/" → {a, b}; "" and "." are the root itself.
std::vector<std::string> components(std::string_view name, const char* what) {
  std::vector<std::string> result;
  if (name.find('\0') != std::string_view::npos) throw_error("the {} holds a NUL byte", what);
  for (std::string& part : split(name, '/')) {
    if (part.empty() || part == ".") continue;
    if (part == "..") throw_error("the {} holds \"..\"", what);
    result.push_back(std::move(part));
  }
  return result;
}

bool all_zero(std::string_view bytes) {
  return bytes[0] == 0 && std::memcmp(bytes.data(), bytes.data() + 1, bytes.size() - 1) == 0;
}

unsigned current_umask() {
  // umask(2) cannot be read without changing it, and other threads make files meanwhile.
  const auto status = sys::read_small_file("/proc/self/status");
  const size_t at = status ? status->find("\nUmask:\t") : std::string::npos;
  if (at == std::string::npos) return 07777;  // unknown: always set the mode
  const size_t end = status->find('\n', at + 1);
  return to_octal(std::string_view(*status).substr(at + 8, end - at - 8)).value_or(07777);
}

struct timespec time_of(std::int64_t seconds, std::uint32_t nanoseconds) {
  struct timespec time {};
  time.tv_sec = seconds;
  time.tv_nsec = nanoseconds;
  return time;
}

bool is_kept_xattr(std::string_view name) {
  if (starts_with(name, "user.overlay.")) return false;  // would change what overlayfs makes of the tree
  return starts_with(name, "user.") || name == "security.capability" || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default";
}

/// File capabilities for a namespace whose root has the id `root_id` in S: version 3 with that id.
std::string with_root_id(const std::string& capability, std::uint32_t root_id) {
  constexpr size_t kVersion2 = 20;
  constexpr std::uint32_t kRevisionMask = 0xff000000U;
  constexpr std::uint32_t kRevision3 = 0x03000000U;
  if (capability.size() < kVersion2) return capability;
  std::string result = capability.substr(0, kVersion2);
  std::uint32_t magic = 0;
  std::memcpy(&magic, result.data(), sizeof magic);  // little-endian on disk, as every machine we run on
  magic = (magic & ~kRevisionMask) | kRevision3;
  std::memcpy(result.data(), &magic, sizeof magic);
  result.append(reinterpret_cast<const char*>(&root_id), sizeof root_id);
  return result;
}

}  // namespace

TreeWriter::TreeWriter(int root_fd, Options options)
    : root_(root_fd), options_(std::move(options)), umask_(current_umask()) {
  // With a default ACL on the root the umask is not what decides.
  if (::fgetxattr(root_, "system.posix_acl_default", nullptr, 0) > 0) umask_ = 07777;
}

void TreeWriter::note(Skipped& what, const std::string& first) {
  if (what.count++ == 0) what.first = first;
}

std::string TreeWriter::path_of(const Place& place) {
  return place.directory.empty() ? place.name : place.directory + "/" + place.name;
}

TreeWriter::Attributes TreeWriter::attributes_of(const TarEntry& entry) {
  return {.mode = entry.mode,
          .uid = entry.uid,
          .gid = entry.gid,
          .mtime = entry.mtime,
          .mtime_nsec = entry.mtime_nsec,
          .xattrs = entry.xattrs};
}

Fd TreeWriter::open_directory(const std::string& path) const {
  return sys::open_beneath(root_, path.empty() ? "." : path, O_RDONLY | O_DIRECTORY);
}

/// Follows links of a directory path by hand, all inside the root; what does not exist yet stays as it is.
std::string TreeWriter::resolve_links(const std::string& path) const {
  std::vector<std::string> todo = split(path, '/');
  std::reverse(todo.begin(), todo.end());
  std::vector<std::string> done;
  unsigned links = 0;
  while (!todo.empty()) {
    const std::string part = std::move(todo.back());
    todo.pop_back();
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (done.empty()) throw_error("its directory leads through a link out of the root");
      done.pop_back();
      continue;
    }
    std::array<char, 4096> target{};
    ssize_t length = -1;
    try {
      const Fd parent = open_directory(join(done, "/"));
      length = ::readlinkat(parent.get(), part.c_str(), target.data(), target.size() - 1);
    } catch (const SysError& error) {
      if (error.code() != ENOENT) throw;
    }
    if (length < 0) {  // no link, or nothing there
      done.push_back(part);
      continue;
    }
    if (++links > kMaxLinks) throw_error("its directory leads through too many links");
    if (target[0] == '/') done.clear();  // absolute links are meant from the container's root
    std::vector<std::string> more = split(std::string_view(target.data(), static_cast<size_t>(length)), '/');
    std::move(more.rbegin(), more.rend(), std::back_inserter(todo));
  }
  return join(done, "/");
}

void TreeWriter::make_directories(const std::string& path) {
  std::string made;
  for (const std::string& part : split(path, '/')) {
    const Fd parent = open_directory(made);
    made += made.empty() ? part : "/" + part;
    if (::mkdirat(parent.get(), part.c_str(), 0755) == 0) {
      // Its own member may still come; until then it is as podman makes it.
      directories_.try_emplace(made, Attributes{.mtime = 0, .mtime_nsec = UTIME_OMIT});
    } else if (errno != EEXIST) {
      throw_errno("make the directory {}", quoted(made));
    } else if (options_.whiteouts && sys::is_whiteout_at(parent.get(), part.c_str())) {
      if (::unlinkat(parent.get(), part.c_str(), 0) < 0 || ::mkdirat(parent.get(), part.c_str(), 0755) < 0) {
        throw_errno("make the directory {}", quoted(made));
      }
      const Fd fresh = open_directory(made);
      sys::make_opaque(fresh.get());
      directories_.try_emplace(made, Attributes{.mtime = 0, .mtime_nsec = UTIME_OMIT});
    }
  }
}

/// An open directory below the root; -1 when it is not there and not to be made.
int TreeWriter::directory_fd(const std::string& path, bool make) {
  const auto found = std::find_if(cache_.begin(), cache_.end(), [&](const auto& each) { return each.first == path; });
  if (found != cache_.end()) {
    cache_.splice(cache_.begin(), cache_, found);
    return cache_.front().second.get();
  }
  Fd fd;
  try {
    fd = open_directory(path);
  } catch (const SysError& error) {
    const bool blocked = error.code() == ELOOP || error.code() == EXDEV || error.code() == ENOTDIR;
    if (!blocked && error.code() != ENOENT) throw;
    const std::string real = resolve_links(path);
    try {
      if (make) make_directories(real);
      fd = open_directory(real);
    } catch (const SysError& second) {
      if (second.code() == ENOENT && !make) return -1;
      if (second.code() != ENOTDIR && second.code() != ELOOP) throw;
      throw_error("a part of its directory {} is not a directory", quoted(path));
    }
  }
  cache_.emplace_front(path, std::move(fd));
  if (cache_.size() > kCachedDirectories) cache_.pop_back();
  return cache_.front().second.get();
}

TreeWriter::Place TreeWriter::place_of(std::string_view name, const char* what) {
  std::vector<std::string> parts = components(name, what);
  Place place;
  if (parts.empty()) return place;
  place.name = std::move(parts.back());
  parts.pop_back();
  place.directory = join(parts, "/");
  return place;
}

void TreeWriter::add(const TarEntry& entry, TarReader& reader) {
  ++files_;
  if (starts_with(entry.name, "/") && entry.name.find_first_not_of("/.") != std::string::npos) {
    throw_error("the name is absolute");
  }
  Place place = place_of(entry.name, "name");
  if (place.name.empty()) {
    if (entry.type != TarEntry::Type::directory) throw_error("the root must be a directory");
    directories_[""] = attributes_of(entry);
    return;
  }
  place.parent = directory_fd(place.directory, true);
  if (options_.whiteouts && starts_with(place.name, kWhiteout) && whiteout(place)) return;
  switch (entry.type) {
    case TarEntry::Type::directory:
      return make_directory(place, entry);
    case TarEntry::Type::file:
      return make_file(place, entry, reader);
    case TarEntry::Type::hard_link:
      return make_hard_link(place, entry);
    case TarEntry::Type::symlink:
    case TarEntry::Type::fifo:
      return make_other(place, entry);
    case TarEntry::Type::character:
    case TarEntry::Type::block:
      // The kernel lets no user namespace make device nodes; char 0:0 would be a whiteout.
      return note(devices_, entry.name);
  }
}

/// source: OCI image-spec layer.md, "Whiteouts"
bool TreeWriter::whiteout(const Place& place) {
  if (place.name == kOpaque) {
    sys::make_opaque(place.parent);
    return true;
  }
  const std::string hidden = place.name.substr(kWhiteout.size());
  if (starts_with(hidden, kWhiteout)) return true;  // aufs' own bookkeeping
  if (hidden.empty() || hidden == "." || hidden == "..") throw_error("a whiteout must name a file");
  struct stat info {};
  if (::fstatat(place.parent, hidden.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
    if (errno != ENOENT) throw_errno("inspect {}", quoted(hidden));
    sys::make_whiteout_at(place.parent, hidden.c_str());
  } else if (S_ISDIR(info.st_mode)) {
    // It hides what lower layers have; what this layer itself has put there stays.
    const Fd directory(::openat(place.parent, hidden.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    if (!directory) throw_errno("open {}", quoted(hidden));
    sys::make_opaque(directory.get());
  }
  return true;
}

/// Removes what stands where a member is to be made (a later member wins). Links are removed, not followed.
void TreeWriter::clear_the_way(Place& place) {
  if (::unlinkat(place.parent, place.name.c_str(), 0) == 0 || errno == ENOENT) {
    const std::string path = path_of(place);
    const bool link_on_the_way = std::any_of(cache_.begin(), cache_.end(), [&](const auto& each) {
      return each.first == path || starts_with(each.first, path + "/");
    });
    if (link_on_the_way) {  // a link that cached paths went through
      const int parent = ::fcntl(place.parent, F_DUPFD_CLOEXEC, 3);
      if (parent < 0) throw_errno("duplicate a descriptor");
      forget_directories();
      cache_.emplace_front(place.directory, Fd(parent));
      place.parent = parent;
    }
    return;
  }
  if (errno != EISDIR && errno != EPERM) throw_errno("replace it");
  sys::remove_tree_at(place.parent, place.name.c_str());
  const std::string path = path_of(place);
  std::erase_if(directories_,
                [&](const auto& each) { return each.first == path || starts_with(each.first, path + "/"); });
  std::erase_if(cache_, [&](const auto& each) { return each.first == path || starts_with(each.first, path + "/"); });
}

void TreeWriter::make_directory(Place& place, const TarEntry& entry) {
  const std::string path = path_of(place);
  if (::mkdirat(place.parent, place.name.c_str(), 0755) < 0) {
    if (errno != EEXIST) throw_errno("make the directory");
    struct stat info {};
    if (::fstatat(place.parent, place.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) throw_errno("inspect it");
    if (!S_ISDIR(info.st_mode)) {
      const bool hides = options_.whiteouts && sys::is_whiteout_at(place.parent, place.name.c_str());
      clear_the_way(place);
      if (::mkdirat(place.parent, place.name.c_str(), 0755) < 0) throw_errno("make the directory");
      if (hides) {
        const Fd fresh(::openat(place.parent, place.name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
        if (!fresh) throw_errno("open the directory");
        sys::make_opaque(fresh.get());
      }
    }
  }
  // Mode, owner and times at the end: what comes below would change the times, and set-group-id would be inherited.
  directories_[path] = attributes_of(entry);
}

void TreeWriter::make_file(Place& place, const TarEntry& entry, TarReader& reader) {
  const unsigned permissions = entry.mode & 0777U;
  const auto open = [&] {
    return Fd(
        ::openat(place.parent, place.name.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, permissions));
  };
  Fd fd = open();
  if (!fd && errno == EEXIST) {
    clear_the_way(place);
    fd = open();
  }
  if (!fd) throw_errno("make the file");
  write_data(fd.get(), entry, reader);
  const Attributes attributes = attributes_of(entry);
  // chown clears set-user-id and file capabilities: mode and xattrs come after it.
  const bool owned = own(fd.get(), nullptr, place, attributes);
  const unsigned mode = owned ? entry.mode : permissions;
  if (mode != permissions || (permissions & umask_) != 0) {
    if (::fchmod(fd.get(), mode) < 0) throw_errno("set its mode");
  }
  if (!entry.xattrs.empty()) set_xattrs(fd.get(), entry.name, entry.xattrs);
  const struct timespec time = time_of(entry.mtime, entry.mtime_nsec);
  const std::array<struct timespec, 2> times = {time, time};
  if (::futimens(fd.get(), times.data()) < 0) throw_errno("set its times");
}

void TreeWriter::write_data(int fd, const TarEntry& entry, TarReader& reader) {
  const auto write = [&](std::string_view bytes, std::uint64_t offset) {
    while (!bytes.empty()) {
      const ssize_t written = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
      if (written < 0) {
        if (errno == EINTR) continue;
        throw_errno("write it");
      }
      bytes.remove_prefix(static_cast<size_t>(written));
      offset += static_cast<std::uint64_t>(written);
    }
  };
  bool hole_at_end = entry.sparse;
  const auto extent = [&](std::uint64_t offset, std::uint64_t length) {
    while (length > 0) {
      const std::string_view bytes = reader.data(static_cast<size_t>(std::min<std::uint64_t>(length, SIZE_MAX)));
      // Gigabytes of zeros in a small blob take no room. Almost always the first byte tells that there are none.
      if (bytes.size() >= kHole && all_zero(bytes)) {
        hole_at_end = true;
      } else {
        write(bytes, offset);
      }
      offset += bytes.size();
      length -= bytes.size();
    }
  };
  if (!entry.sparse) extent(0, entry.size);
  for (const auto& [offset, length] : entry.extents) extent(offset, length);
  if (hole_at_end && ::ftruncate(fd, static_cast<off_t>(entry.size)) < 0) throw_errno("set its size");
}

void TreeWriter::make_hard_link(const Place& place, const TarEntry& entry) {
  const Place target = place_of(entry.link, "target of the hard link");
  if (target.name.empty()) throw_error("a hard link to the root");
  if (target.directory == place.directory && target.name == place.name) return;
  // The lookup below may push the parent out of the cache.
  const Fd parent(::fcntl(place.parent, F_DUPFD_CLOEXEC, 3));
  if (!parent) throw_errno("duplicate a descriptor");
  const int from = directory_fd(target.directory, false);
  struct stat info {};
  if (from < 0 || ::fstatat(from, target.name.c_str(), &info, AT_SYMLINK_NOFOLLOW) < 0) {
    throw_error("hard link to {}, which is not in the archive", quoted(entry.link));
  }
  if (S_ISDIR(info.st_mode) || (S_ISCHR(info.st_mode) && info.st_rdev == 0)) {
    throw_error("hard link to {}, which is not a file", quoted(entry.link));
  }
  const auto link = [&] { return ::linkat(from, target.name.c_str(), parent.get(), place.name.c_str(), 0) == 0; };
  if (!link()) {
    if (errno != EEXIST) throw_errno("link it to {}", quoted(entry.link));
    const Fd source(::fcntl(from, F_DUPFD_CLOEXEC, 3));
    Place again{.parent = parent.get(), .directory = place.directory, .name = place.name};
    clear_the_way(again);
    if (!source || ::linkat(source.get(), target.name.c_str(), parent.get(), place.name.c_str(), 0) < 0) {
      throw_errno("link it to {}", quoted(entry.link));
    }
  }
  if (options_.map->is_single()) record_owner(path_of(place), attributes_of(entry));
}

void TreeWriter::make_other(Place& place, const TarEntry& entry) {
  const bool link = entry.type == TarEntry::Type::symlink;
  if (link && entry.link.empty()) throw_error("a symbolic link without a target");
  const auto make = [&] {
    return link ? ::symlinkat(entry.link.c_str(), place.parent, place.name.c_str())
                : ::mkfifoat(place.parent, place.name.c_str(), entry.mode & 0777U);
  };
  if (make() < 0) {
    if (errno != EEXIST) throw_errno("make the {}", link ? "link" : "fifo");
    clear_the_way(place);
    if (make() < 0) throw_errno("make the {}", link ? "link" : "fifo");
  }
  own(-1, place.name.c_str(), place, attributes_of(entry));
  if (!link && ::fchmodat(place.parent, place.name.c_str(), entry.mode & 0777U, 0) < 0) throw_errno("set its mode");
  const struct timespec time = time_of(entry.mtime, entry.mtime_nsec);
  const std::array<struct timespec, 2> times = {time, time};
  if (::utimensat(place.parent, place.name.c_str(), times.data(), AT_SYMLINK_NOFOLLOW) < 0) {
    throw_errno("set its times");
  }
}

/// Gives a fresh file (fd, or name below the place's parent) its owner. false: the id cannot be had, and the file must
/// not be set-user-id for whoever owns it instead.
bool TreeWriter::own(int fd, const char* name, const Place& place, const Attributes& attributes) {
  const store::IdMapping& map = *options_.map;
  if (map.is_single()) {
    record_owner(path_of(place), attributes);
    return true;
  }
  const auto lookup = [](std::uint64_t id, auto&& of) -> std::optional<std::uint32_t> {
    return id > UINT32_MAX - 1 ? std::nullopt : of(static_cast<std::uint32_t>(id));
  };
  auto uid = lookup(attributes.uid, [&](std::uint32_t id) { return map.uid(id); });
  auto gid = lookup(attributes.gid, [&](std::uint32_t id) { return map.gid(id); });
  const auto change = [&](std::uint32_t to_uid, std::uint32_t to_gid) {
    if (to_uid == 0 && to_gid == 0) return true;  // as it was made
    return (fd >= 0 ? ::fchown(fd, to_uid, to_gid)
                    : ::fchownat(place.parent, name, to_uid, to_gid, AT_SYMLINK_NOFOLLOW)) == 0;
  };
  if (uid && gid) {
    if (change(*uid, *gid)) return true;
    if (errno != EINVAL) throw_errno("set its owner {}:{}", attributes.uid, attributes.gid);
  }
  note(unmapped_, fmt::format("{} ({}:{})", quoted(path_of(place)), attributes.uid, attributes.gid));
  const std::uint32_t nobody = map.uid(kNobody).value_or(0);
  const std::uint32_t nogroup = map.gid(kNobody).value_or(0);
  if (!change(nobody, nogroup) && errno != EINVAL) throw_errno("set its owner");
  return false;
}

void TreeWriter::record_owner(const std::string& path, const Attributes& attributes) {
  if (attributes.uid == 0 && attributes.gid == 0) return;
  owners_ += fmt::format("{} {} {}", attributes.uid, attributes.gid, path);
  owners_ += '\0';
}

void TreeWriter::set_xattrs(int fd, const std::string& path, const std::map<std::string, std::string>& xattrs) {
  for (const auto& [name, value] : xattrs) {
    if (!is_kept_xattr(name)) continue;
    const bool shifted = name == "security.capability" && options_.map->uid(0).value_or(0) != 0;
    const std::string bytes = shifted ? with_root_id(value, *options_.map->uid(0)) : value;
    if (::fsetxattr(fd, name.c_str(), bytes.data(), bytes.size(), 0) == 0) continue;
    if (errno != EPERM && errno != ENOTSUP && errno != EINVAL) throw_errno("set its attribute {}", quoted(name));
    note(xattrs_, fmt::format("{} of {}", quoted(name), quoted(path)));
  }
}

/// A directory that a member has named; nothing when a later member took its place.
Fd TreeWriter::open_finished(const std::string& path) const {
  try {
    return open_directory(path);
  } catch (const SysError& error) {
    if (error.code() == ENOENT) return Fd();
    if (error.code() != ELOOP && error.code() != EXDEV && error.code() != ENOTDIR) throw;
  }
  try {
    return open_directory(resolve_links(path));
  } catch (const SysError& error) {
    if (error.code() != ENOENT && error.code() != ENOTDIR) throw;
    return Fd();
  }
}

void TreeWriter::finish() {
  // Archives often leave the root out; it belongs to the container's root all the same, whatever id that is here.
  directories_.try_emplace("", Attributes{.mtime = 0, .mtime_nsec = UTIME_OMIT});
  for (const auto& [path, attributes] : directories_) {
    try {
      const Fd fd = open_finished(path);
      if (!fd) continue;
      const size_t slash = path.rfind('/');
      const Place place{.parent = -1,
                        .directory = slash == std::string::npos ? "" : path.substr(0, slash),
                        .name = slash == std::string::npos ? path : path.substr(slash + 1)};
      const bool owned = own(fd.get(), nullptr, place, attributes);
      if (::fchmod(fd.get(), owned ? attributes.mode : attributes.mode & 01777U) < 0) throw_errno("set its mode");
      if (!attributes.xattrs.empty()) set_xattrs(fd.get(), path, attributes.xattrs);
      const struct timespec time = time_of(attributes.mtime, attributes.mtime_nsec);
      const std::array<struct timespec, 2> times = {time, time};
      if (::futimens(fd.get(), times.data()) < 0) throw_errno("set its times");
    } catch (Error& error) {
      error.add_context(quoted(path));
      throw;
    }
  }
  if (!options_.owners_file.empty()) sys::replace_file(options_.owners_file, owners_);
}

std::vector<std::string> TreeWriter::warnings() const {
  std::vector<std::string> result;
  if (unmapped_.count > 0) {
    result.push_back(fmt::format(
        "{} files belong to ids outside the available range and were given to nobody (first: {}); a larger range in "
        "/etc/subuid and /etc/subgid keeps them",
        unmapped_.count, unmapped_.first));
  }
  if (devices_.count > 0) {
    result.push_back(fmt::format("{} device nodes were left out: they cannot be made without root (first: {})",
                                 devices_.count, quoted(devices_.first)));
  }
  if (xattrs_.count > 0) {
    result.push_back(
        fmt::format("{} extended attributes could not be set here (first: {})", xattrs_.count, xattrs_.first));
  }
  return result;
}

}  // namespace kelp::image
